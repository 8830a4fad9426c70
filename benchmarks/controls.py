"""Do the checks of an evaluation fire where something is wrong, and only there?

    python benchmarks/controls.py [--minutes 2] [--seeds 5] [--models vae gan]

On Fashion-MNIST with 2,000 samples: generators that are wrong in a known way, held-out data as samples, and models that
are trained as their recipes say for so many minutes. Prints which checks fired and compares with the table; writes
benchmarks/results/controls.json. Ctrl-C loses nothing: a finished training is not done again.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import pofx
from pofx import core, data, examples
from pofx.core import Classes, Model, Noise, Samples
from pofx.data.dataset import Dataset, Split
from pofx.evaluate import modules
from pofx.findings import Flag
from pofx.run import hardware, versions
from pofx.subject import SOME, Subject

RESULTS = pathlib.Path(__file__).parent / "results" / "controls.json"
#: The metrics that can raise a flag about samples or codes.
CHECKING = ("bins", "codes", "copying", "labels", "neighbourhoods", "sharpness")

#: Control -> checks that must fire, and checks that may; any other must not. Written before the checks.
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "training images": ({"memorisation"}, set()),
    # A hundred pictures leave much undrawn.
    "100 held-out images": ({"repetition"}, {"missing modes"}),
    "half of the classes": ({"missing modes"}, set()),
    # Blur moves images away from sharp ones.
    "blurred": ({"blur"}, {"missing modes", "off the data"}),
    "noise": ({"off the data"}, {"missing modes"}),
    # All of its samples are one picture, or nearly so.
    "collapsed latent": ({"collapsed codes"}, {"blur", "missing modes", "repetition", "off the data"}),
    "held-out data": (set(), set()),
    "trained model": (set(), set()),
}


class Replay(Model, Samples):
    """Returns given examples, whatever the noise."""

    kinds = frozenset({"images"})
    Config = core.Config

    def __init__(self, spec: core.DataSpec, x: Tensor) -> None:
        super().__init__(spec, core.Config())
        self.x = x

    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None) -> Tensor:
        return self.x[noise.first : noise.first + n]


def blur(x: Tensor, sigma: float = 1.5) -> Tensor:
    """A Gaussian blur of so many pixels."""
    reach = int(3 * sigma + 1)
    place = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = (-0.5 * (place / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = torch.nn.functional.pad(x, (reach,) * 4, mode="reflect")
    x = torch.nn.functional.conv2d(x, kernel, groups=x.shape[1])
    return torch.nn.functional.conv2d(x, kernel.mT, groups=x.shape[1])


def _first(split: Split, n: int, seed: int) -> Tensor:
    return split.batch(split.positions(shuffle=seed)[:n]).x


def _hundred(dataset: Dataset, rest: Split, n: int, seed: int) -> Tensor:
    place = torch.randint(100, (n,), generator=torch.Generator().manual_seed(seed))
    return _first(rest, 100, seed)[place]


def _half(dataset: Dataset, rest: Split, n: int, seed: int) -> Tensor:
    """Held-out examples of half of the classes, which the seed chooses; at most n."""
    assert isinstance(dataset.spec.label, Classes)
    count = len(dataset.spec.label.names)
    kept = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // 2]
    batch = rest.batch(rest.positions(shuffle=seed))
    assert batch.label is not None
    return batch.x[torch.isin(batch.label, kept)][:n]


#: From the data, the half of the held-out examples that is not measured on, a number of samples and a seed.
CONTROLS: dict[str, Callable[[Dataset, Split, int, int], Tensor]] = {
    "training images": lambda dataset, rest, n, seed: _first(dataset.train, n, 100 + seed),
    "100 held-out images": _hundred,
    "half of the classes": _half,
    "blurred": lambda dataset, rest, n, seed: blur(_first(rest, n, seed)),
    "noise": lambda dataset, rest, n, seed: torch.rand(n, *dataset.spec.shape, generator=torch.Generator().manual_seed(seed)),
    "held-out data": lambda dataset, rest, n, seed: _first(rest, n, seed),
}


def divided(dataset: Dataset) -> tuple[Dataset, Split]:
    """The data set with half of its test part, and the other half."""
    test = dataset.test
    assert test is not None
    rows = torch.arange(len(test.x)) if test._rows is None else test._rows
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    mine, rest = (Split(test.x, test.label, rows=part, bits=test.bits, seed=test.seed) for part in rows.chunk(2))
    return dataclasses.replace(dataset, test=mine), rest


def flags(model: Model, dataset: Dataset, *, checking: Sequence[str] = CHECKING) -> dict[str, str]:
    """Check -> sentence, of what is wrong with a model."""
    assert dataset.test is not None
    with examples.asking(model):
        subject = Subject(model, dataset, dataset, dataset.test, "test")
        fitting = [module for name, module in modules(model).items() if name in checking]
        found = [finding for module in fitting for finding in module.measure(subject) if isinstance(finding, Flag)]
    return {flag.check: flag.sentence for flag in found}


def control(name: str, dataset: Dataset, rest: Split, seed: int, *, n: int = SOME, checking: Sequence[str] = CHECKING) -> dict[str, str]:
    """The flags of a control with n samples."""
    return flags(Replay(dataset.spec, CONTROLS[name](dataset, rest, n, seed)), dataset, checking=checking)


def collapsed(dataset: Dataset, seed: int, folder: pathlib.Path, *, checking: Sequence[str] = CHECKING) -> dict[str, str]:
    """The flags of a variational autoencoder whose divergence weighs so much that its codes say nothing."""
    run = folder / f"collapsed-{seed}"
    if not run.exists():
        pofx.train("vae", dataset, run=run, steps=500, seed=seed, beta=1000.0, quiet=True, report=False)
    return flags(pofx.load(run), dataset, checking=checking)


def verdict(name: str, found: dict[str, str]) -> str:
    """What is wrong with the checks that fired; nothing where the table agrees."""
    must, may = TABLE[name]
    missed, false = must - found.keys(), found.keys() - must - may
    return "; ".join([*(f"{check} did not fire" for check in sorted(missed)), *(f"{check}: {found[check]}" for check in sorted(false))])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["vae", "gan"])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/controls"))
    options = parser.parse_args()
    whole = data.load("fashion_mnist")
    dataset, rest = divided(whole)
    results: dict[str, dict[str, list[str]]] = {}
    wrong = 0

    def note(name: str, row: str, found: dict[str, str], seed: int) -> None:
        nonlocal wrong
        complaint = verdict(name, found)
        wrong += bool(complaint)
        results.setdefault(row, {})[str(seed)] = sorted(found)
        print(f"{row:24s} seed {seed}  {', '.join(sorted(found)) or '-':40s} {complaint or 'as it should be'}", flush=True)

    for seed in range(options.seeds):
        for name in CONTROLS:
            note(name, name, control(name, dataset, rest, seed), seed)
        note("collapsed latent", "collapsed latent", collapsed(whole, seed, options.folder), seed)
    for name in options.models:
        for seed in range(options.seeds):
            run = options.folder / f"{name}-{seed}"
            done = run.exists() and pofx.Run.read(run).info["status"] == "finished"
            if not done:
                pofx.train(name, whole, run=run, minutes=options.minutes, seed=seed, resume=run.exists(), report=False, quiet=True)
            note("trained model", name, flags(pofx.load(run), whole), seed)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"minutes": options.minutes, "samples": SOME, "hardware": hardware(), "versions": versions(), "flags": results}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("every check fired where it must and nowhere else" if not wrong else f"{wrong} controls were judged wrongly")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
