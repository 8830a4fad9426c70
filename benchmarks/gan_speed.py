"""Images a second of the GAN under each loss and each penalty, against the loop that a person would write over the same modules.

    python benchmarks/gan_speed.py [--seconds 3] [--pairs 5] [--only default R2]

The networks and the batch of the recipe for Fashion-MNIST; one thing is changed at a time; last other games by their own recipes, the
one that grows at its full size. The trainer as it comes, and PyTorch
as it comes (a DataLoader of float images, float32, default memory format, unfused Adam), each in a process of its own, by turns.
An image is one that the discriminator has seen as real; each round has a move of both players. Prints medians, their paired
ratio and what a choice costs beside the default; writes benchmarks/results/gan_speed.json (or --out). Fails where the default is less than
3.5 times as fast as the plain loop.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from typing import Any

from speed import images, turns

from pofx import discovery
from pofx.core import DataSpec
from pofx.nn.growing import sizes
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "gan_speed.json"
FASTER = 3.5
FREE = {"gamma": 0.0, "gamma_fake": 0.0}
#: What is changed in the recipe's config.
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "minimax": {"loss": "minimax"},
    "least squares": {"loss": "least_squares"},
    "hinge": {"loss": "hinge"},
    "Wasserstein": {"loss": "wasserstein"},
    "relativistic": {"relativistic": True},
    "no penalty": FREE,
    "R1": {**FREE, "gamma": 0.3},
    "R2": {**FREE, "gamma_fake": 0.3},
    "R1 and R2": {**FREE, "gamma": 0.3, "gamma_fake": 0.3},
    "WGAN-GP": {**FREE, "wgan_gp": 10.0},
    "DRAGAN": {**FREE, "dragan": 10.0},
    "spectral norm": {**FREE, "spectral_norm": True},
    "minibatch std": {"minibatch_std": 4},
    "attention": {"attention": True},
    "residual": {"architecture": "residual"},
}
#: Other games.
GAMES = ("progressive_gan", "style_gan")


def recipe_of(name: str, spec: DataSpec) -> tuple[dict[str, Any], int]:
    """The fields and the batch of a model's recipe; of one that grows for all of the budget but a moment at its full size."""
    recipe = discovery.model(name).recipe(spec, None)
    fields = {field.name: getattr(recipe.config, field.name) for field in dataclasses.fields(recipe.config)}
    if "stable" in fields:
        growths = len(sizes(spec.shape)) - 1
        fields |= {"stable": (1e-6,) * growths + (1.0,), "fade": (1e-6,) * growths}
    return fields, recipe.batch_size


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*CASES, *GAMES], choices=[*CASES, *GAMES])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    source, dataset = images()
    base, batch = recipe_of("gan", dataset.spec)
    found: dict[str, dict[str, Any]] = {}
    print(f"{source}, batch {batch}; images a second")
    print("case".ljust(16) + "".join(column.rjust(14) for column in ("precision", "trainer", "plain", "times plain", "of default")))
    for case in options.only:
        name, (fields, size) = (case, recipe_of(case, dataset.spec)) if case in GAMES else ("gan", ({**base, **CASES[case]}, batch))
        parameters, dtype, rates = turns(name, fields, ["trainer", "plain"], batch=size, pairs=options.pairs, seconds=options.seconds)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["trainer"], rates["plain"], strict=True))
        row = {way: round(size * statistics.median(values), 1) for way, values in rates.items()}
        found[case] = {"parameters": parameters, "precision": dtype, "batch": size, **row, "times plain": round(ratio, 2)}
        share = f"{row['trainer'] / found['default']['trainer']:.0%}" if "default" in found else ""
        cells = (dtype, f"{row['trainer']:,.0f}", f"{row['plain']:,.0f}", f"{ratio:.2f}", share)
        print(case.ljust(16) + "".join(cell.rjust(14) for cell in cells), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    content = {"data": source, "batch": batch, "hardware": hardware(), "versions": versions(), "cases": found}
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int("default" in found and found["default"]["times plain"] < FASTER)


if __name__ == "__main__":
    sys.exit(main())
