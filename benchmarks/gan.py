"""Are the GAN's samples good, do they show everything, and does every seed get there?

    python benchmarks/gan.py [SYSTEM ...] [--seeds N] [--folder runs/gan]

Trains `gan` as its recipe says, system by system, and measures samples against test images that training never saw:

    10 minutes   Fashion-MNIST, three seeds, beside the dense `vae` at the same budget: Fréchet distance in the frozen classifier's
                 features, its ratio to the VAE's, coverage with k = 5; below, real images against real ones
    an hour      the same, one seed
    20 seeds     Fashion-MNIST, 3 minutes each: every distance within 1.5 times their median, or the run is flagged by a symptom
                 in its run.json; at most two flagged
    stacked      an hour on stacked Fashion-MNIST, 26,000 samples: modes of 1,000 with 13 samples or more, divergence of the modes
                 from even shares; below, the same of real triples

Prints tables and writes benchmarks/results/gan.json, a row for each seed. Ctrl-C loses nothing: a training goes on where it was
stopped, a finished one is not done again. --rehearse only records how many rounds the minutes are, by one minute of each model on an idle
machine; trainings for these rounds may then share the machine.
"""

import argparse
import dataclasses
import datetime
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from idle import described, flags, idle_rounds, rehearsed, rounds, trained

import pofx
from pofx import data, examples, features
from pofx.data.dataset import Dataset
from pofx.metrics import frechet_distance, prdc, stacked_modes
from pofx.metrics.stacked import Judge
from pofx.run import Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "gan.json"
MODEL, BASELINE = "gan", "vae"
#: Neighbours of coverage. Samples of stacked images.
K, STACKED = 5, 26_000
#: Distances of many seeds in their median, and seeds that may be flagged.
WITHIN, FLAGGED = 1.5, 2


@dataclasses.dataclass(frozen=True)
class System:
    """What is trained: on which data, for how many minutes, how many seeds, which models.

    target: name of a number -> (at most, value) or (at least, value), which every seed must keep.
    """

    data: str
    minutes: float
    seeds: int
    models: tuple[str, ...]
    target: Mapping[str, tuple[str, float]]


SYSTEMS = {
    "10 minutes": System("fashion_mnist", 10, 3, (BASELINE, MODEL), {"ratio": ("at most", 0.5), "coverage": ("at least", 0.70)}),
    "an hour": System("fashion_mnist", 60, 1, (BASELINE, MODEL), {"ratio": ("at most", 0.3), "coverage": ("at least", 0.82)}),
    "20 seeds": System("fashion_mnist", 3, 20, (MODEL,), {}),
    "stacked": System("stacked_fashion_mnist", 60, 1, (MODEL,), {"filled": ("at least", 900), "kl": ("at most", 0.10)}),
}


class Images:
    """Samples against test images in the frozen classifier's features: equally many of both, n at most."""

    def __init__(self, dataset: Dataset, n: int) -> None:
        assert dataset.test is not None
        self.by, x = features.choose("frozen", dataset), dataset.test.batch(dataset.test.positions(shuffle=0)).x
        self.n = min(n, len(x) // 2)
        self.real, self.other = self.by(x[: self.n]), self.by(x[self.n : 2 * self.n])
        #: The same numbers of real images.
        self.floor = self.numbers(self.other)

    def numbers(self, seen: Any) -> dict[str, float]:
        """Distance and coverage of some examples' features."""
        return {"frechet": frechet_distance(self.real, seen), "coverage": prdc(self.real, seen, K)["coverage"]}

    def __call__(self, run: Run) -> dict[str, Any]:
        """Of a run's samples."""
        return self.numbers(self.by(examples.draw(pofx.load(run.path), self.n, seed=0)))

    @property
    def about(self) -> dict[str, Any]:
        """How it was measured."""
        return {"n": self.n, "k": K, "features": self.by.name, "floor": self.floor}


class Modes:
    """Modes of n samples of stacked images."""

    def __init__(self, dataset: Dataset, n: int) -> None:
        assert dataset.test is not None
        self.judge, self.n = Judge(dataset.source, dataset.options), min(n, len(dataset.test))
        self.floor = self.numbers(dataset.test.batch(torch.arange(self.n)).x)

    def numbers(self, x: torch.Tensor) -> dict[str, float]:
        """Counts of some triples."""
        return stacked_modes(self.judge(x), self.judge.modes)._asdict()

    def __call__(self, run: Run) -> dict[str, Any]:
        """Of a run's samples."""
        return self.numbers(examples.draw(pofx.load(run.path), self.n, seed=0))

    @property
    def about(self) -> dict[str, Any]:
        """How it was measured."""
        return {"n": self.n, "accuracy": self.judge.accuracy, "floor": self.floor}


def outliers(frechet: Sequence[float], flagged: Sequence[bool]) -> dict[str, Any]:
    """Which of many seeds are too far, whether each of those was flagged, and whether few enough were.

    held: no seed is beyond 1.5 times the median without a flag, and at most two are flagged.
    """
    # A training that ended in nothing finite is farther than any.
    frechet = [value if math.isfinite(value) else math.inf for value in frechet]
    median = statistics.median(frechet)
    beyond = [i for i, value in enumerate(frechet) if value > WITHIN * median]
    missed = [i for i in beyond if not flagged[i]]
    return {
        "median": median,
        "beyond": beyond,
        "flagged": [i for i, flag in enumerate(flagged) if flag],
        "missed": missed,
        "held": not missed and sum(flagged) <= FLAGGED,
    }


def kept(row: Mapping[str, Any], target: Mapping[str, tuple[str, float]]) -> bool:
    """Whether a row keeps all targets."""
    return all(row[name] <= value if bound == "at most" else row[name] >= value for name, (bound, value) in target.items())


def train_system(name: str, system: System, options: argparse.Namespace, results: dict[str, Any]) -> bool:
    """Trains and measures all seeds of a system, and writes each down, or only rehearses it; whether it is as it must be."""
    minutes, seeds = options.minutes or system.minutes, options.seeds or system.seeds
    before = results.get(name, {})
    rows: dict[str, Any] = before.get("seeds", {}) if before.get("minutes") == minutes else {}
    known = before.get("idle_rounds", {}) if before.get("minutes") == minutes else {}
    dataset = data.load(system.data)
    if options.rehearse:
        known = {model: rehearsed(model, dataset, minutes) for model in system.models}
        results[name] = {**before, "minutes": minutes, "idle_rounds": known, "seeds": rows}
        write(results, options.out)
        print(
            f"{name}: " + ", ".join(f"{model} {rounds(record):,} rounds in {minutes:g} minutes" for model, record in known.items()),
            flush=True,
        )
        return True
    measure = Modes(dataset, options.stacked) if system.data.startswith("stacked") else Images(dataset, options.samples)
    print(f"{name}: {system.data}, {minutes:g} minutes")
    for seed in range(seeds):
        row: dict[str, Any] = {}
        for model in system.models:
            path = options.folder / f"{name.replace(' ', '-')}-{minutes:g}min-{model}-{seed}"
            run = trained(model, dataset, path, seed, minutes, known.get(model), any_speed=options.any_speed)
            row[model] = described(run) | {"symptoms": run.info.get("symptoms", {})} | measure(run)
        mine = row[MODEL]
        if BASELINE in row:
            mine["ratio"] = mine["frechet"] / row[BASELINE]["frechet"]
        rows[str(seed)] = row
        if not options.any_speed:
            clocked = {model: idle_rounds(row[model] for row in rows.values() if model in row) for model in system.models}
            known |= {model: record for model, record in clocked.items() if record is not None}
        shown = "  ".join(f"{key} {mine[key]:.4g}" for key in ("frechet", "ratio", "coverage", "found", "filled", "kl") if key in mine)
        beside = f"  ({BASELINE}: {row[BASELINE]['frechet']:.2f}, {row[BASELINE]['coverage']:.2f})" if BASELINE in row else ""
        print(f"  seed {seed:2d}  {mine['rounds']:7,d} rounds  {shown}{beside}  {', '.join(mine['symptoms']) or 'no symptom'}", flush=True)
        results[name] = {
            "minutes": minutes,
            "idle_rounds": known,
            **measure.about,
            "seeds": rows,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
        }
        write(results, options.out)
    mine = [rows[str(seed)][MODEL] for seed in range(seeds)]
    print("  real against real: " + "  ".join(f"{key} {value:.4g}" for key, value in measure.floor.items()))
    if system.target:
        held = all(kept(row, system.target) for row in mine)
        goal = ", ".join(f"{key} {bound} {value:g}" for key, (bound, value) in system.target.items())
    else:
        found = outliers([row["frechet"] for row in mine], [bool(row["symptoms"]) for row in mine])
        results[name] |= {"seeds_apart": found}
        held, goal = found["held"], f"within {WITHIN:g} of the median or flagged, at most {FLAGGED} flagged"
        worst = max(row["frechet"] for row in mine) / found["median"]
        print(f"  median {found['median']:.3g}, worst {worst:.2f} of it; beyond: {found['beyond']}, flagged: {found['flagged']}")
    results[name] |= {"held": held}
    write(results, options.out)
    print(f"  {'as it must be' if held else 'NOT as it must be'}: {goal}", flush=True)
    return held


def write(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes all results."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--minutes", type=float, help="other minutes than the system's; needs another --out")
    parser.add_argument("--seeds", type=int, help="another number of seeds than the system's; needs another --out")
    parser.add_argument("--samples", type=int, default=5000, help="samples, and as many test images, in a distance")
    parser.add_argument("--stacked", type=int, default=STACKED, help="samples of stacked images")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/gan"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    for name in options.systems:
        if name not in SYSTEMS:
            parser.error(f"there is no system {name!r}: {', '.join(SYSTEMS)}")
    if options.out == RESULTS and (options.minutes or options.seeds):
        parser.error("results of other minutes or seeds than a system's own go elsewhere: give --out")
    results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    missed = [name for name in options.systems if not train_system(name, SYSTEMS[name], options, results)]
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
