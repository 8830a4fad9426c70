"""Is growing worth it on small images? Fashion-MNIST with a black margin, 32 x 32, from 4 x 4 on, beside a fixed resolution.

    python benchmarks/growing.py [--minutes 60] [--seeds 1]

Trains `progressive_gan` and `gan` at equal time, each as its recipe says, and takes the Fréchet distance of samples to test images that
no training saw, in the frozen classifier's features of the 28 x 28 pixels within the margin; below, the distance of real images to real
ones. That of the model that grows must be at most 1.2 times the other's. Prints a table and writes benchmarks/results/growing.json,
a row for each seed. Ctrl-C loses nothing: a training goes on where it was stopped, a finished one is not done again. Skips itself where
Fashion-MNIST is not there.
"""

import argparse
import datetime
import json
import pathlib
import sys
from typing import Any

import numpy as np
from idle import described, flags, idle_rounds, rehearsed, rounds, trained
from torch import Tensor

import pofx
from pofx import data, examples, features
from pofx.core import UsageError
from pofx.metrics import frechet_distance
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "growing.json"
GROWING, FIXED = "progressive_gan", "gan"
#: The distance of the model that grows, in that of the fixed resolution.
TIMES = 1.2
MARGIN = 2


def padded(dataset: data.Dataset, folder: pathlib.Path) -> data.Dataset:
    """The training images with a margin. They lie in a file, since a training that goes on reads its data again."""
    path = folder / "fashion_mnist_32.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        x = dataset.codec.show(dataset.train.batch(dataset.train.positions()).x)
        temporary = path.with_name(f".{path.name}")
        np.savez(temporary, x=np.pad(x, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))))
        temporary.rename(path)
    return data.load(path, data.Options(validation=0.0))


def within(x: Tensor) -> Tensor:
    """The images without their margin."""
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="other minutes need another --out")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=5000, help="samples, and as many test images, in a distance")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/growing"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    if options.out == RESULTS and options.minutes != parser.get_default("minutes"):
        parser.error("results of other minutes go elsewhere: give --out")
    try:
        original = data.load("fashion_mnist")
    except UsageError as error:
        print(f"skipped: {error}")
        return 0
    assert original.test is not None
    dataset = padded(original, options.folder)
    last = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    last = last if last.get("minutes") == options.minutes else {}
    known: dict[str, Any] = last.get("idle_rounds", {})
    options.out.parent.mkdir(exist_ok=True, parents=True)
    if options.rehearse:
        known = {name: rehearsed(name, dataset, options.minutes) for name in (FIXED, GROWING)}
        print(f"rounds in {options.minutes:g} minutes: " + ", ".join(f"{rounds(record):,} of {name}" for name, record in known.items()))
        content = {**last, "minutes": options.minutes, "idle_rounds": known}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return 0

    by = features.choose("frozen", original)
    x = original.test.batch(original.test.positions(shuffle=0)).x
    n = min(options.samples, len(x) // 2)
    real = by(x[:n])
    floor = frechet_distance(real, by(x[n : 2 * n]))
    rows: dict[str, dict[str, Any]] = last.get("seeds", {})
    for seed in range(options.seeds):
        row: dict[str, Any] = {}
        for name in (FIXED, GROWING):
            path = options.folder / f"{name}-{options.minutes:g}min-{seed}"
            run = trained(name, dataset, path, seed, options.minutes, known.get(name), any_speed=options.any_speed)
            drawn = within(examples.draw(pofx.load(run.path), n, seed=0))
            row[name] = described(run) | {"symptoms": run.info.get("symptoms", {}), "frechet": frechet_distance(real, by(drawn))}
            print(f"seed {seed}  {name:16s} {row[name]['rounds']:7,d} rounds  Fréchet {row[name]['frechet']:8.3f}", flush=True)
        row["ratio"] = row[GROWING]["frechet"] / row[FIXED]["frechet"]
        rows[str(seed)] = row
        if not options.any_speed:
            clocked = {name: idle_rounds(row[name] for row in rows.values()) for name in (FIXED, GROWING)}
            known |= {name: record for name, record in clocked.items() if record is not None}
        held = all(row["ratio"] <= TIMES for row in rows.values())
        content = {
            "minutes": options.minutes,
            # What a busy machine trains for: of the last runs by the clock of an idle one.
            "idle_rounds": known,
            "n": n,
            "features": by.name,
            "floor": floor,
            "held": held,
            "seeds": rows,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"real images against real ones: {floor:.3f} ({by.name}, {n:,} of each)")
    shown = ", ".join(f"{row['ratio']:.2f}" for row in rows.values())
    print(f"{'as it must be' if held else 'NOT as it must be'}: {shown} of the distance of {FIXED}, at most {TIMES}")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
