"""Are a conditional GAN's samples of the class that was asked for, and do they show all of it?

    python benchmarks/conditional.py [--minutes 10] [--seeds 3] [--conditioning projection]

On Fashion-MNIST, `gan` with classes as its recipe says, for as many minutes. A `classifier` of its own, trained once by its
recipe on the training part, names the samples; it must itself be right on 90 % of the test images. Prints for each seed the
share of samples that it gives the label that was asked for, and the coverage (k = 5, as many samples of a class as test images
of it, features of that classifier) of the mean class and of the worst one, and beside them the same of training images.
Writes benchmarks/results/conditional.json. Ctrl-C loses nothing: a finished training is not done again. --rehearse only records how many
rounds the minutes are, by one minute on an idle machine; trainings for these rounds may then share the machine.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import sys
from typing import Any, cast

import numpy as np
import torch
from idle import described, flags, idle_rounds, rehearsed, rounds, trained
from torch import Tensor

import pofx
from pofx import data, examples
from pofx.core import Classifies, Encodes, Model
from pofx.metrics.labels import class_coverage
from pofx.run import Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "conditional.json"
#: What must hold: of the judge on test images, of samples with the label asked for, of the coverage of each class.
RIGHT, AGREEMENT, COVERAGE = 0.9, 0.9, 0.6
#: Images that the judge is asked about at once.
PART = 500


def judge(dataset: data.Dataset, folder: pathlib.Path, steps: int | None) -> Model:
    """A classifier of the data, trained once; for less than its recipe where `steps` says so, for a trial."""
    path = folder / ("classifier" if steps is None else f"classifier-{steps}")
    finished = path.exists() and Run.read(path).info["status"] == "finished"
    if not finished:
        pofx.train("classifier", dataset, run=path, seed=0, steps=steps, resume=path.exists(), quiet=True, report=False)
    return pofx.load(path)


@torch.no_grad()
def named(model: Model, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The class that the judge gives each image, and what it compares them by."""
    parts = x.split(PART)
    logits = torch.cat([cast(Classifies, model).classify(part) for part in parts])
    features = torch.cat([cast(Encodes, model).encode(part) for part in parts])
    return logits.argmax(1).numpy(), features.numpy()


def coverage(real: np.ndarray, label: np.ndarray, other: np.ndarray, asked: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Of each class by its name."""
    return {names[i]: value for i, value in class_coverage(real, label, other, asked).items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--conditioning", choices=("projection", "concatenation", "auxiliary_classifier"), default="projection")
    parser.add_argument("--samples", type=int, default=10_000, help="samples, and test images that they are compared with")
    parser.add_argument("--judge-steps", type=int, help="moves of the classifier, for a trial; by default its recipe's")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/conditional"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    dataset = data.load("fashion_mnist")
    assert dataset.test is not None
    assert dataset.spec.label is not None
    names = dataset.spec.label.names
    everything = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    last = everything.get(options.conditioning, {})
    known = last.get("rounds") if last.get("minutes") == options.minutes else None

    if options.rehearse:
        record = rehearsed("gan", dataset, options.minutes, conditional=True, conditioning=options.conditioning)
        everything[options.conditioning] = {**last, "minutes": options.minutes, "rounds": record}
        write(everything, options.out)
        print(f"{options.conditioning}: {rounds(record):,} rounds in {options.minutes:g} minutes")
        return 0
    model = judge(dataset, options.folder, options.judge_steps)
    test = examples.some(dataset.test, options.samples)
    other = examples.some(dataset.train, len(test.x), seed=1)
    assert test.label is not None
    assert other.label is not None
    label = test.label.numpy()
    named_real, real = named(model, test.x)
    accuracy = float((named_real == label).mean())
    named_other, seen = named(model, other.x)
    floor = {
        "agreement": float((named_other == other.label.numpy()).mean()),
        "coverage": coverage(real, label, seen, other.label.numpy(), names),
    }
    print(f"the judge is right on {accuracy:.1%} of {len(label):,} test images (at least {RIGHT:.0%})")
    print(f"{'seed':>4s} {'rounds':>7s} {'agreement':>10s} {'coverage':>9s} {'worst':>6s}")
    print(
        f"{'':4s} {'real':>7s} {floor['agreement']:10.1%} {statistics.mean(floor['coverage'].values()):9.3f} "
        f"{min(floor['coverage'].values()):6.3f}"
    )
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        path = options.folder / f"gan-{options.conditioning}-{options.minutes:g}min-{seed}"
        run = trained(
            "gan", dataset, path, seed, options.minutes, known,
            any_speed=options.any_speed, conditional=True, conditioning=options.conditioning,
        )  # fmt: skip
        # The labels of the test images, in their order: as many samples of a class as there are images of it.
        drawn = examples.draw(pofx.load(run.path), len(label), seed=0, label=test.label)
        by_judge, fake = named(model, drawn)
        covered = coverage(real, label, fake, label, names)
        row = {
            "seed": seed,
            **described(run),
            "agreement": float((by_judge == label).mean()),
            "agreement_of_class": {
                name: float((by_judge == label)[label == i].mean()) for i, name in enumerate(names) if (label == i).any()
            },
            "coverage": covered,
        }
        rows.append(row)
        worst = min(covered, key=lambda name: covered[name])
        print(
            f"{seed:4d} {row['rounds']:7,d} {row['agreement']:10.1%} {statistics.mean(covered.values()):9.3f} {covered[worst]:6.3f} ({worst})",
            flush=True,
        )
    held = accuracy >= RIGHT and all(row["agreement"] >= AGREEMENT and min(row["coverage"].values()) >= COVERAGE for row in rows)
    print(
        f"at least {AGREEMENT:.0%} agreement and coverage of {COVERAGE} in every class: "
        f"{'as it must be' if held else 'NOT as it must be'} in {options.seeds} seeds"
    )
    everything[options.conditioning] = {
        "minutes": options.minutes,
        "samples": len(label),
        # What a busy machine trains for: of the last runs by the clock of an idle one.
        "rounds": known if options.any_speed else idle_rounds(rows) or known,
        "judge": accuracy,
        "real": floor,
        "held": held,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "seeds": rows,
    }
    write(everything, options.out)
    return int(not held)


def write(everything: dict[str, Any], path: pathlib.Path) -> None:
    """Writes all results."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
