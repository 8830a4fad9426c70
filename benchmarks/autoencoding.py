"""Likelihoods and reconstructions of Fashion-MNIST at a stated time, beside published and trivial ones.

    python benchmarks/autoencoding.py [SYSTEM ...] [--images 10000] [--samples 5000]

Trains each system for its minutes and measures it on the test images: negative log-likelihoods in nats as the
importance-weighted bound on dynamically binarised images (one fixed draw of the test part, whose hash is printed), or mean
squared errors of reconstructions, whose pixels lie in [0, 1] by the decoder's sigmoid. Prints a table and writes
benchmarks/results/autoencoding.json, system by system. Ctrl-C loses nothing: a training goes on where it was stopped, a
finished one is not done again.
"""

import argparse
import dataclasses
import datetime
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from idle import Record, described, flags, kept, rehearsed, rounds, trained

import pofx
from pofx import data, examples
from pofx.core import Batch, Model, Optimizer
from pofx.data.dataset import Dataset
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "autoencoding.json"
SHOWN = 500
#: Importance samples of the images that do not have all.
FEW = 50


@dataclasses.dataclass(frozen=True)
class System:
    """model, config: what is trained; `ema` among the fields is the trainer's. minutes: for how long. measured: nll or mse.
    target: what it must reach; None: it is only reported."""

    model: str
    config: Mapping[str, Any]
    minutes: float
    measured: str
    target: float | None


#: Quick moves to the end whose noise a long average takes out.
DENSE_VAE = {"latent_dim": 40, "optimizer": Optimizer(lr=3e-3, warmup=0.02, decay="linear", final=0.25), "ema": 0.9998}
#: A prior that follows the codes gains 1.7 nats at equal rounds (18,909), for 1.2 times the time.
DENSE_HOUR = {
    "latent_dim": 40,
    "prior": "mixture",
    "components": 1000,
    "optimizer": Optimizer(lr=3e-3, warmup=0.02, decay="linear", final=0.1),
    "ema": 0.99995,
}
#: A vector and maps of 7 x 7; the prior of the vector follows its codes, which gains 0.5 nats after 5,436 rounds.
HIERARCHY_HOUR = {
    "layers": (1, 1),
    "latents": (40, 8),
    "prior": "mixture",
    "optimizer": Optimizer(lr=3e-3, warmup=0.02, decay="linear", final=0.05, clip=200.0),
    "ema": 0.9999,
}
SYSTEMS = {
    "784-32-784": System("autoencoder", {"latent_dim": 32, "hidden": (), "code_activation": "relu"}, 10, "mse", None),
    "deep dense 32": System("autoencoder", {"latent_dim": 32, "hidden": (1024, 512)}, 10, "mse", 0.0078),
    "conv 64": System("autoencoder", {"latent_dim": 64, "architecture": "conv"}, 10, "mse", 0.0055),
    "dense vae": System("vae", DENSE_VAE, 10, "nll", 228.7),
    "dense vae, an hour": System("vae", DENSE_HOUR, 60, "nll", 226.7),
    "hierarchical, an hour": System("hierarchical_vae", HIERARCHY_HOUR, 60, "nll", 224.6),
}


def mean_squared_error(model: Model, dataset: Dataset) -> dict[str, Any]:
    """Of the test images, and of their reconstructions from as many principal components as the code has numbers."""
    from sklearn.decomposition import PCA

    assert dataset.test is not None
    x = dataset.test.batch(torch.arange(len(dataset.test))).x
    rebuilt = torch.cat([examples.reconstruct(model, Batch(part)) for part in x.split(SHOWN)])
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    code = examples.encode(model, Batch(x[:1])).shape[1]
    train = dataset.train.batch(dataset.train.positions()).x.flatten(1).numpy()
    pca = PCA(code, random_state=0).fit(train)
    linear = torch.from_numpy(pca.inverse_transform(pca.transform(x.flatten(1).numpy()))).clamp(0, 1)
    return {
        "value": float((rebuilt - x).square().mean()),
        "error": float((rebuilt - x).square().flatten(1).mean(1).std() / math.sqrt(len(x))),
        "n": len(x),
        "trivial": {f"{code} principal components, clamped": float((linear - x.flatten(1)).square().mean())},
    }


def negative_log_likelihood(model: Model, dataset: Dataset, images: int, samples: int, *, many: int | None = None) -> dict[str, Any]:
    """The importance-weighted bound with K = `samples`, in nats, of the first test images in an order that no sorting decides;
    beside the entropy of the drawn bits.

    Arguments:
        many: K is as large for the first so many images only, the others have K = `FEW`; what the larger K gains on those is
            then taken off the mean of all. None: all have the larger K.
    """
    assert dataset.test is not None
    positions = dataset.test.positions(shuffle=0)[:images]
    if many is None or many >= len(positions):
        values = _scores(model, dataset, positions, samples)
        value, error = float(values.mean()), float(values.std() / math.sqrt(len(values)))
        counted = {"n": len(values)}
    else:
        few = _scores(model, dataset, positions, FEW)
        gain = few[:many] - _scores(model, dataset, positions[:many], samples)
        value = float(few.mean() - gain.mean())
        error = float((few.var() / len(few) + gain.var() / len(gain)).sqrt())
        counted = {"n": len(few), "few": FEW, "with_all_samples": len(gain), "error_of_the_gain": float(gain.std() / math.sqrt(len(gain)))}
    floor = dataset.test.entropy(positions)
    return {
        "value": value,
        "error": error,
        **counted,
        "samples": samples,
        "above_floor": value - floor,
        "floor": floor,
        "draw": dataset.test.draw_hash(),
        "trivial": independent(dataset, positions),
    }


def _scores(model: Model, dataset: Dataset, positions: torch.Tensor, samples: int) -> torch.Tensor:
    """-log p(x) of test images, in nats."""
    assert dataset.test is not None
    nats, done, start = [], 0, time.perf_counter()
    with examples.asking(model):
        for part in positions.split(50):
            nats.append(-cast(Any, model).log_prob(dataset.test.batch(part).x, samples=samples).nats)
            done += len(part)
            if sys.stderr.isatty():
                left = (time.perf_counter() - start) / done * (len(positions) - done) / 60
                print(
                    f"\r{done:,} of {len(positions):,} images, K = {samples:,}, {left:.0f} min left ", end="", file=sys.stderr, flush=True
                )
    return torch.cat(nats).double()


def independent(dataset: Dataset, positions: torch.Tensor) -> dict[str, float]:
    """Coins whose chances are the training mean of each pixel."""
    assert dataset.test is not None
    train, test = (
        split.batch(rows).x.flatten(1) for split, rows in ((dataset.train, dataset.train.positions()), (dataset.test, positions))
    )
    chance = train.mean(0).clamp(1e-4, 1 - 1e-4)
    return {"independent pixels": float(-(test @ chance.log() + (1 - test) @ (1 - chance).log()).mean())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--many", type=int, help="so many images have all samples, the others 50; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/autoencoding"))
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    for name in options.systems:
        if name not in SYSTEMS:
            parser.error(f"there is no system {name!r}: {', '.join(SYSTEMS)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    missed = 0
    for name in options.systems:
        system = SYSTEMS[name]
        dataset = data.load("fashion_mnist", data.Options(bits=1 if system.measured == "nll" else None))
        path = options.folder / f"{name.replace(' ', '-').replace(',', '')}-{options.seed}"
        before = results.get(name, {})
        known: Record | None = before.get("idle_rounds")
        if options.rehearse:
            known = rehearsed(system.model, dataset, system.minutes, **dict(system.config))
            results[name] = {"seeds": {}, **before, "idle_rounds": known}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{name:24s} {rounds(known):,} rounds in {system.minutes:g} minutes", flush=True)
            continue
        run = trained(system.model, dataset, path, options.seed, system.minutes, known, any_speed=options.any_speed, **dict(system.config))
        model = pofx.load(run.path)
        measured = {
            "nll": lambda model, dataset: negative_log_likelihood(model, dataset, options.images, options.samples, many=options.many),
            "mse": mean_squared_error,
        }
        found = measured[system.measured](model, dataset)
        held = system.target is None or found["value"] <= system.target
        missed += not held
        made = {
            "seed": options.seed,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
        }
        row = made | described(run) | found | {"target": system.target, "any_speed": options.any_speed}
        results[name] = kept(before, row)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        goal = "reported only" if system.target is None else f"{'as it must be' if held else 'MISSED'}: at most {system.target}"
        some = f" for {found['with_all_samples']:,}, 50 for the others" if "with_all_samples" in found else ""
        more = f", K = {found['samples']:,}{some}, {found['above_floor']:.2f} above the floor" if "samples" in found else ""
        trivial = ", ".join(f"{value:.5g} {key}" for key, value in found["trivial"].items())
        print(
            f"{name:24s} {system.measured} {found['value']:.5g} +- {1.96 * found['error']:.2g} (n = {found['n']:,}{more}; {trivial}); {goal}",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
