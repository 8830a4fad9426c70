"""Does a discriminator make a variational autoencoder's samples better, and what does it cost in reconstruction?

    python benchmarks/vae_gan.py [--minutes 10] [--seeds 3]

On Fashion-MNIST, `vae` and `vae_gan` in turns, each as its recipe says and with codes of one length, for as many minutes.
Prints for each seed the Fréchet distance of samples of the prior to test images (features of the frozen classifier), the
mean squared error of reconstructions of the test images (means of the decoder, which lie in [0, 1]), and the
autoencoder's own likelihood, which shows that it is not crippled; below stands the distance of real images to real ones.
Writes benchmarks/results/vae_gan.json. Ctrl-C loses nothing: a finished training is not done again.
"""

import argparse
import datetime
import json
import math
import pathlib
import statistics
import sys
from typing import Any, cast

import torch
from idle import described, flags, idle_rounds, rehearsed, rounds, trained

import pofx
from pofx import data, examples, features
from pofx.core import Batch, Scores
from pofx.metrics.frechet import frechet_distance
from pofx.run import Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "vae_gan.json"
MODELS = ("vae", "vae_gan")
#: What must hold: the distance of samples and the error of reconstructions, in those of the plain autoencoder.
DISTANCE, ERROR = 0.7, 1.5
IMPORTANCE, SCORED = 500, 1000


def measure(run: Run, dataset: data.Dataset, by: features.Features, n: int) -> dict[str, Any]:
    """What a trained model's samples and reconstructions are worth, against the test part."""
    model = pofx.load(run.path)
    assert dataset.test is not None
    x = dataset.test.batch(torch.arange(len(dataset.test))).x
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    rebuilt = torch.cat([examples.reconstruct(model, Batch(part)) for part in x.split(500)])
    found = {
        "seed": run.info["seed"],
        **described(run),
        "latent_dim": run.info["config"]["latent_dim"],
        "frechet": frechet_distance(by(shuffled[:n]), by(examples.draw(model, n, seed=0))),
        "mse": float((rebuilt - x).square().mean()),
    }
    if Scores in model.capabilities:
        with examples.asking(model):
            scores = [cast(Any, model).log_prob(part, samples=IMPORTANCE).nats for part in shuffled[:SCORED].split(50)]
        nats = -torch.cat(scores)
        found |= {"nll": float(nats.mean()), "nll_error": float(nats.std() / math.sqrt(len(nats)))}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5000, help="samples, and as many test images, in a distance")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/vae_gan"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    flags(parser, rehearsal=True)
    options = parser.parse_args()
    dataset = data.load("fashion_mnist")
    assert dataset.test is not None
    by = features.choose("frozen", dataset)
    last = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    known = last.get("rounds", {}) if last.get("minutes") == options.minutes else {}
    if options.rehearse:
        known = {name: rehearsed(name, dataset, options.minutes) for name in MODELS}
        print(f"rounds in {options.minutes:g} minutes: " + ", ".join(f"{rounds(record):,} of {name}" for name, record in known.items()))
        options.out.write_text(json.dumps({**last, "minutes": options.minutes, "rounds": known}, indent=1) + "\n", encoding="utf-8")
        return 0

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
    print(f"{'seed':>4s}  {'model':8s} {'rounds':>7s} {'Fréchet':>8s} {'ratio':>6s} {'MSE':>8s} {'ratio':>6s}  NLL (K={IMPORTANCE})")
    for seed in range(options.seeds):
        for name in MODELS:
            path = options.folder / f"{name}-{options.minutes:g}min-{seed}"
            run = trained(name, dataset, path, seed, options.minutes, known.get(name), any_speed=options.any_speed)
            row = measure(run, dataset, by, options.samples)
            rows[name].append(row)
            base = rows[MODELS[0]][seed]
            nll = f"{row['nll']:.1f} +- {row['nll_error']:.1f} nats" if "nll" in row else ""
            print(
                f"{seed:4d}  {name:8s} {row['rounds']:7,d} {row['frechet']:8.2f} {row['frechet'] / base['frechet']:6.2f} "
                f"{row['mse']:8.5f} {row['mse'] / base['mse']:6.2f}  {nll}",
                flush=True,
            )
    x = dataset.test.batch(torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(0))).x
    half = min(options.samples, len(x) // 2)
    floor = frechet_distance(by(x[:half]), by(x[half : 2 * half]))
    pairs = list(zip(*(rows[name] for name in MODELS), strict=True))
    ratios = {key: [hybrid[key] / plain[key] for plain, hybrid in pairs] for key in ("frechet", "mse")}
    held = all(a <= DISTANCE and b <= ERROR for a, b in zip(ratios["frechet"], ratios["mse"], strict=True))
    print(f"real images against real ones: {floor:.3f} ({by.name}, {half:,} of each)")
    print(
        f"distance {statistics.mean(ratios['frechet']):.2f} of the vae's (at most {DISTANCE}), error {statistics.mean(ratios['mse']):.2f} "
        f"of it (at most {ERROR}): {'as it must be' if held else 'NOT as it must be'} in {options.seeds} seeds"
    )
    clocked = {} if options.any_speed else {name: idle_rounds(of_model) for name, of_model in rows.items()}
    content = {
        "minutes": options.minutes,
        "samples": options.samples,
        "features": by.name,
        # What a busy machine trains for: of the last runs by the clock of an idle one.
        "rounds": known | {name: record for name, record in clocked.items() if record is not None},
        "floor": floor,
        "ratios": ratios,
        "held": held,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "models": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
