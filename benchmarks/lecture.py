"""The autoencoders and variational autoencoders of a lecture, one command each, with the figures that teach them.

    python benchmarks/lecture.py [--minutes 2] [--data digits fashion_mnist]

Runs each command line as a person would type it, prints it with what it reached on held-out examples, and draws its figures
into the run folders; then the codes of the plane autoencoder and of the plane variational autoencoder side by side, with the
numbers. Writes benchmarks/results/lecture.json, data set by data set. Ctrl-C loses nothing: a finished training is not done again.
"""

import argparse
import contextlib
import datetime
import io
import json
import pathlib
import sys
from typing import Any

import torch

from pofx import data, examples
from pofx.cli import main as pofx_command
from pofx.core import Batch, Denoises
from pofx.run import Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "lecture.json"
CONV = "--model.architecture conv --model.latent-dim None --model.reconstruction cross_entropy"
#: Name -> model and flags, and the figures to look at.
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fully connected": ("autoencoder --model.latent-dim 32 --model.hidden --model.code-activation relu", ("reconstructions",)),
    "fully connected, cross-entropy": (
        "autoencoder --model.latent-dim 32 --model.hidden --model.code-activation relu --model.reconstruction cross_entropy",
        ("reconstructions",),
    ),
    "deep": ("autoencoder --model.latent-dim 32 --model.hidden 128 64 --model.activation relu", ("reconstructions",)),
    "convolutional": (
        f"autoencoder {CONV} --model.optimizer.name adadelta --model.optimizer.lr 1 --model.optimizer.eps 1e-6",
        ("reconstructions",),
    ),
    "denoising": (f"autoencoder {CONV} --model.noise gaussian --model.noise-strength 0.5", ("denoising",)),
    "plane autoencoder": (
        "autoencoder --model.latent-dim 2 --model.hidden 512 --model.activation relu",
        ("reconstructions", "latent", "manifold"),
    ),
    "plane variational autoencoder": (
        "vae --model.latent-dim 2 --model.hidden 512 --model.likelihood bernoulli",
        ("reconstructions", "latent", "manifold", "traversal"),
    ),
}


def command(line: str) -> str:
    """What a command prints. Raises `SystemExit` where it fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = pofx_command(line.split())
    if code:
        raise SystemExit(code)
    return printed.getvalue().strip()


def measure(run: Run) -> dict[str, Any]:
    """Squared errors a pixel on the first held-out examples, beside those of the mean training image."""
    model, dataset = run.model(), run.dataset()
    part, held = examples.held_out(dataset)
    x = examples.first(held, 2000).x
    mean = dataset.train.batch(dataset.train.positions()[:10_000]).x.mean(0)
    given = examples.corrupt(model, x) if Denoises in model.capabilities else x
    rebuilt = torch.cat([examples.reconstruct(model, Batch(rows)) for rows in given.split(500)])
    found = {"part": part, "n": len(x), "mse": float((rebuilt - x).square().mean()), "mean_image": float((mean - x).square().mean())}
    return found | ({"noisy": float((given - x).square().mean())} if given is not x else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--data", nargs="*", default=["digits", "fashion_mnist"])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/lecture"))
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for source in options.data:
        data.load(source)  # a source that is not there is told at once
        systems: dict[str, Any] = {}
        for name, (flags, figures) in SYSTEMS.items():
            path = options.folder / f"{source}-{name.replace(' ', '-').replace(',', '')}"
            line = f"train {flags} --data {source} --minutes {options.minutes:g} --run {path} --quiet true"
            if not path.exists():
                command(line)
            elif Run.read(path).info["status"] != "finished":
                command(f"train --run {path} --resume true --quiet true")
            found = measure(Run.open(path))
            shown = [command(f"plot {path} {figure}") for figure in figures]
            systems[name] = {"command": f"pofx {line}", "figures": shown, **found}
            noisy = f", noisy {found['noisy']:.4f}" if "noisy" in found else ""
            print(
                f"{source:14s} {name:30s} MSE {found['mse']:.4f} (mean image {found['mean_image']:.4f}{noisy}; n = {found['n']:,})",
                flush=True,
            )
        one, other = (options.folder / f"{source}-plane-{name}" for name in ("autoencoder", "variational-autoencoder"))
        for figure in ("latent", "manifold"):
            out = options.folder / f"{source}-{figure}-side-by-side.png"
            print(command(f"plot {one} {figure} --compare {other} --out {out}"), flush=True)
        results[source] = {
            "minutes": options.minutes, "systems": systems, "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(), "versions": versions(),
        }  # fmt: skip
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
