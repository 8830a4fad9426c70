"""Faces from 400 pictures: is growing worth it, is growth smooth, and what does augmentation save?

    python benchmarks/faces.py [SYSTEM ...] [--data ../shared/data/faces] [--folder runs/faces]

The ORL faces, 40 people of 10 pictures each, 92 x 112; four people are left out of every training. Trains as recipes say and compares
samples with all pictures, 400 with 400, by the kernel distance (KID) in random convolutions; below, halves of the pictures against
each other.

    an hour        `progressive_gan` beside `gan` at equal time: its KID at most 1.2 times as large. Copies of training pictures, as
                   often as the people left out look like some; a picture of samples above their nearest training pictures. Its growths:
                   KID of whole samples a tenth of a stage after each has begun and after it is over, at most 1.3 times that before
    augmentation   `gan` with and without, 20 minutes, three seeds: how often the discriminator takes a training face for more real than
                   one of the people left out, and KID, in one figure

Prints tables, writes benchmarks/results/faces.json, a row for each seed, and pictures into the folder. Ctrl-C loses nothing: a training
goes on where it was stopped, a finished one is not done again. Skips itself where the faces are not there.
"""

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import json
import pathlib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from idle import described, flags, idle_rounds, rehearsed, rounds, trained
from torch import Tensor

import pofx
from pofx import data, discovery, examples, features, figures, intervals
from pofx.core import Judges, Model
from pofx.data.images import grid
from pofx.metrics import kernel_distance
from pofx.metrics.copying import c_t, copies
from pofx.metrics.nearest import neighbours
from pofx.run import Run, hardware, versions
from pofx.trainer import Trainer

RESULTS = pathlib.Path(__file__).parent / "results" / "faces.json"
FACES = pathlib.Path(__file__).parents[2] / "shared" / "data" / "faces"
#: People whom no training sees.
LEFT_OUT = ("s10", "s20", "s30", "s40")
GROWING, FIXED = "progressive_gan", "gan"
#: KID in that of the fixed resolution; KID after a growth in that before; the share of a stage that is between them.
TIMES, SMOOTH, TENTH = 1.2, 1.3, 0.1
#: Halves for the floor; samples in the picture of neighbours.
HALVES, SHOWN = 40, 10
#: What a person would change in faces.
CHANGES = ("flip", "shift", "colour", "cutout")


@dataclasses.dataclass(frozen=True)
class System:
    """minutes: of each training. seeds: how many. variants: name -> model, and fields of its config beside the recipe."""

    minutes: float
    seeds: int
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]


SYSTEMS = {
    "an hour": System(60, 1, {FIXED: (FIXED, {}), GROWING: (GROWING, {})}),
    "augmentation": System(20, 3, {"plain": (FIXED, {}), "augmented": (FIXED, {"augment": CHANGES})}),
}


def divided(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A folder of links in which the people left out are the test part."""
    for person in sorted(root.iterdir()):
        if person.is_dir():
            link = folder / ("test" if person.name in LEFT_OUT else "train") / person.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(person.resolve())
    return folder


class Faces:
    """The pictures, and what samples are compared with: n of them at most."""

    def __init__(self, dataset: data.Dataset, n: int) -> None:
        assert dataset.test is not None
        self.train, self.held = (part.batch(part.positions(shuffle=0)).x for part in (dataset.train, dataset.test))
        self.by, self.components = features.convolutions(dataset), features.components(dataset)
        everybody = torch.cat((self.train, self.held))
        self.n = min(n, len(everybody))
        # Of fewer a mixture of all people.
        self.real = self.by(everybody[torch.randperm(len(everybody), generator=torch.Generator().manual_seed(0))[: self.n]])
        half = self.n // 2
        values = [kernel_distance(self.real[i], self.real[j], subsets=1).value for i, j in intervals.shuffles(half, self.n - half, HALVES)]
        #: Of halves of the pictures against each other.
        self.floor = {"kid": statistics.mean(values), "spread": statistics.stdev(values), "n": half}

    def kid(self, x: Tensor) -> dict[str, float]:
        """Kernel distance of some pictures to the real ones, and its standard error."""
        found = kernel_distance(self.real, self.by(x), subsets=1, size=max(len(x), self.n))
        return {"kid": found.value, "error": found.error}

    def copied(self, x: Tensor) -> dict[str, float]:
        """How near pictures come to training pictures, beside how near the people left out come."""
        train, held, fake = (self.components(part) for part in (self.train, self.held, x))
        held_distance, fake_distance = neighbours(held, train, 2)[0], neighbours(fake, train, 2)[0]
        found = copies(held_distance, fake_distance)
        return {
            "copies": float(found.fake.mean()),
            "copies_of_left_out": float(found.held.mean()),
            "distance": float(fake_distance[:, 0].mean()),
            "distance_of_left_out": float(held_distance[:, 0].mean()),
            "c_t": c_t(train, held, fake),
        }

    def judged(self, model: Model) -> dict[str, float]:
        """How often the discriminator takes a training face for more real than one of the people left out, 1/2 if it knows none; and the
        mean logits of both."""
        with examples.asking(model):
            train, held = (torch.cat([cast(Judges, model).judge(part) for part in x.split(100)]) for x in (self.train, self.held))
        above = (train[:, None] > held).double().mean() + 0.5 * (train[:, None] == held).double().mean()
        return {"known": float(above), "train_logit": float(train.mean()), "left_out_logit": float(held.mean())}

    def beside_neighbours(self, x: Tensor, path: pathlib.Path) -> None:
        """A picture of the first samples above the training pictures that are nearest to them, and of some left out above theirs."""
        train, rows, names = self.components(self.train), [], []
        for name, some in (("sample", x[:SHOWN]), ("left out", self.held[: len(x[:SHOWN])])):
            nearest = neighbours(self.components(some), train)[1][:, 0]
            rows += [some, self.train[nearest]]
            names += [name, "its nearest"]
        figures.save(figures.picture(grid(torch.cat(rows), len(rows[0])), "pictures above the nearest training ones", rows=names), path)


def points(sizes: Sequence[tuple[int, int]], ends: Sequence[float]) -> dict[str, float]:
    """The end of each size and, a tenth of the next stage after its growth has begun and after it is over, two points more."""
    found, names = {}, [f"{height} x {width}" for height, width in sizes]
    for i, name in enumerate(names[1:]):
        start, over, end = ends[2 * i : 2 * i + 3]
        tenth = TENTH * (end - start)
        found |= {names[i]: start, f"{name} begun": start + tenth, f"{name} grown": over + tenth}
    return dict(sorted(found.items(), key=lambda item: item[1]))


@contextlib.contextmanager
def watched(n: int) -> Iterator[None]:
    """Within this context a training that grows keeps n samples of its averaged weights at each of the `points`."""
    cls, write = cast(Any, discovery.model(GROWING)), Trainer.write
    own = cls.milestones

    def writing(trainer: Trainer, values: dict[str, Any]) -> None:
        write(trainer, values)
        if "milestone" in values and trainer.run is not None:
            path = trainer.run.path / "grown" / f"{values['milestone']}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, examples.draw(trainer.average, n, seed=0).numpy())

    cls.milestones = property(lambda model: points(model.sizes, model.schedule.ends))
    Trainer.write = writing  # type: ignore[method-assign]
    try:
        yield
    finally:
        cls.milestones = own
        Trainer.write = write  # type: ignore[method-assign]


def growths(run: Run, faces: Faces) -> dict[str, dict[str, Any]]:
    """KID before and after each growth of a run that was watched, and the larger ratio."""
    seen = {path.stem: faces.kid(torch.from_numpy(np.load(path))) for path in (run.path / "grown").glob("*.npy")}
    names, found = [f"{height} x {width}" for height, width in cast(Any, run.model()).sizes], {}
    for before, name in itertools.pairwise(names):
        # In a short training several points may be passed in one move.
        if all(point in seen for point in (before, f"{name} begun", f"{name} grown")):
            was, *later = seen[before], seen[f"{name} begun"], seen[f"{name} grown"]
            found[name] = {"before": was, "begun": later[0], "grown": later[1], "ratio": max(one["kid"] for one in later) / was["kid"]}
    return found


def measured(run: Run, faces: Faces, picture: pathlib.Path) -> dict[str, Any]:
    """What a trained model's samples are worth."""
    model = pofx.load(run.path)
    x = examples.draw(model, faces.n, seed=0)
    faces.beside_neighbours(x, picture)
    return faces.kid(x) | faces.copied(x) | faces.judged(model) | {"picture": str(picture)}


def judgement(rows: Mapping[str, Mapping[str, Any]], floor: Mapping[str, float], path: pathlib.Path) -> None:
    """The figure of what augmentation saves: each seed with and without it."""
    figure, (known, kid) = figures.canvas("few pictures, with and without augmentation", 9.0, 4.5, ncols=2)
    names = list(SYSTEMS["augmentation"].variants)
    for i, name in enumerate(names):
        for number, row in enumerate(rows.values()):
            place = i + 0.1 * (number - (len(rows) - 1) / 2)
            known.plot(place, row[name]["known"], "o", color=figures.colour(i))
            kid.errorbar(place, row[name]["kid"], 1.96 * row[name]["error"], fmt="o", color=figures.colour(i))
    known.axhline(0.5, color=figures.REAL)
    known.set(ylabel="P(D(training face) > D(face of people left out))")
    kid.axhline(floor["kid"], color=figures.REAL)
    kid.set(ylabel="KID, with 95 % intervals; the line: real against real")
    for axes in (known, kid):
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    figures.save(figure, path)


def verdict(name: str, rows: Mapping[str, Mapping[str, Any]], found: dict[str, Any], options: argparse.Namespace, faces: Faces) -> bool:
    """Says whether a system is as it must be, and keeps what it says."""
    if name == "augmentation":
        path = options.folder / "augmentation.png"
        judgement(rows, faces.floor, path)
        known, kid = (
            {variant: statistics.mean(row[variant][key] for row in rows.values()) for variant in SYSTEMS[name].variants}
            for key in ("known", "kid")
        )
        found |= {"mean_known": known, "mean_kid": kid, "figure": str(path)}
        print(f"  {path}: known {known['plain']:.3f} -> {known['augmented']:.3f}, KID {kid['plain']:.4f} -> {kid['augmented']:.4f}")
        return True
    ratios = [row[GROWING]["kid"] / row[FIXED]["kid"] for row in rows.values()]
    jumps = {size: growth["ratio"] for row in rows.values() for size, growth in row[GROWING]["growths"].items()}
    found |= {"ratios": ratios, "largest_jump": max(jumps.values(), default=None)}
    near = all(row[GROWING]["kid"] <= TIMES * max(row[FIXED]["kid"], 0.0) for row in rows.values())
    smooth = bool(jumps) and max(jumps.values()) <= SMOOTH
    print(f"  {'as it must be' if near else 'NOT as it must be'}: KID {max(ratios):.2f} of that of {FIXED}, at most {TIMES}")
    shown = ", ".join(f"{size} {ratio:.2f}" for size, ratio in jumps.items()) or "none was seen"
    print(f"  {'as it must be' if smooth else 'NOT as it must be'}: growths, KID after over before, {shown}; at most {SMOOTH}", flush=True)
    return near and smooth


def train_system(name: str, options: argparse.Namespace, faces: Faces, dataset: data.Dataset, results: dict[str, Any]) -> bool:
    """Trains and measures all seeds of a system, and writes each down; whether it is as it must be."""
    system = SYSTEMS[name]
    minutes, seeds = options.minutes or system.minutes, options.seeds or system.seeds
    before = results.get(name, {}) if results.get(name, {}).get("minutes") == minutes else {}
    rows: dict[str, Any] = before.get("seeds", {})
    known: dict[str, Any] = before.get("idle_rounds", {})
    if options.rehearse:
        known = {variant: rehearsed(model, dataset, minutes, **config) for variant, (model, config) in system.variants.items()}
        print(f"{name}: " + ", ".join(f"{rounds(record):,} rounds of {variant}" for variant, record in known.items()))
        results[name] = {**before, "minutes": minutes, "idle_rounds": known}
        write(results, options.out)
        return True
    print(f"{name}: {minutes:g} minutes; KID of real against real {faces.floor['kid']:.4f} +- {faces.floor['spread']:.4f}")
    found: dict[str, Any] = {}
    for seed in range(seeds):
        row: dict[str, Any] = {}
        for variant, (model, config) in system.variants.items():
            path = options.folder / f"{name.replace(' ', '-')}-{minutes:g}min-{variant}-{seed}"
            with watched(faces.n):
                run = trained(model, dataset, path, seed, minutes, known.get(variant), any_speed=options.any_speed, **config)
            row[variant] = described(run) | {"symptoms": run.info.get("symptoms", {})}
            row[variant] |= measured(run, faces, options.folder / f"{run.path.name}.png")
            if model == GROWING:
                row[variant]["growths"] = growths(run, faces)
            mine = row[variant]
            print(
                f"  seed {seed}  {variant:16s} {mine['rounds']:7,d} rounds  KID {mine['kid']:.4f} +- {1.96 * mine['error']:.4f}  copies "
                f"{mine['copies']:.1%} (left out {mine['copies_of_left_out']:.1%})  known {mine['known']:.3f}",
                flush=True,
            )
        rows[str(seed)] = row
        if not options.any_speed:
            clocked = {variant: idle_rounds(row[variant] for row in rows.values()) for variant in system.variants}
            known |= {variant: record for variant, record in clocked.items() if record is not None}
        found = {
            "minutes": minutes,
            "idle_rounds": known,
            "n": faces.n,
            "features": faces.by.name,
            "floor": faces.floor,
            "left_out": LEFT_OUT,
            "seeds": rows,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
        }
        results[name] = found
        write(results, options.out)
    found["held"] = verdict(name, rows, found, options, faces)
    write(results, options.out)
    return bool(found["held"])


def write(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes all results."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--data", type=pathlib.Path, default=FACES, help="the folder of people")
    parser.add_argument("--minutes", type=float, help="other minutes than the system's; needs another --out")
    parser.add_argument("--seeds", type=int, help="another number of seeds than the system's; needs another --out")
    parser.add_argument("--samples", type=int, default=400, help="samples, and as many pictures, in a distance")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/faces"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    for name in options.systems:
        if name not in SYSTEMS:
            parser.error(f"there is no system {name!r}: {', '.join(SYSTEMS)}")
    if options.out == RESULTS and (options.minutes or options.seeds):
        parser.error("results of other minutes or seeds than a system's own go elsewhere: give --out")
    if not options.data.is_dir():
        print(
            f"skipped: there are no faces at {options.data} (the ORL database of faces, a folder of pictures for each person); give --data"
        )
        return 0
    dataset = data.load(divided(options.data, options.folder / "pictures"), data.Options(validation=0.0))
    faces = Faces(dataset, options.samples)
    results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    missed = [name for name in options.systems if not train_system(name, options, faces, dataset, results)]
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
