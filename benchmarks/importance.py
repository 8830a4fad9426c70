"""Does the bound of 50 draws give a better likelihood than that of one, at equal updates?

    python benchmarks/importance.py [--epochs 30] [--seeds 0 1 2] [--draws 50]

Trains the same networks twice on dynamically binarised Fashion-MNIST, with one draw a step and with 50, from the same seeds and
with batches of the same examples, and compares their importance-weighted bounds with K = 5,000 on the same 1,000 test images.
Prints a table and writes benchmarks/results/importance.json. Ctrl-C loses nothing.
"""

import argparse
import datetime
import json
import pathlib
import sys
from typing import Any

import autoencoding

import pofx
from pofx import data
from pofx.run import Run, hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "importance.json"
#: The networks of the paper: two layers of 200, codes of 50.
CONFIG = {"latent_dim": 50, "hidden": (200, 200), "activation": "silu"}
GAIN = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/importance"))
    options = parser.parse_args()
    dataset = data.load("fashion_mnist", data.Options(bits=1))
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        found: dict[int, float] = {}
        for draws in (1, options.draws):
            path = options.folder / f"{draws}-draws-{options.epochs:g}-epochs-{seed}"
            if not (path.exists() and Run.read(path).info["status"] == "finished"):
                pofx.train(
                    "vae", dataset, run=path, resume=path.exists(), epochs=options.epochs, seed=seed, importance_samples=draws, quiet=True,
                    report=False, **CONFIG,
                )  # fmt: skip
            found[draws] = autoencoding.negative_log_likelihood(pofx.load(path), dataset, options.images, options.samples)["value"]
        gain = found[1] - found[options.draws]
        rows.append({"seed": seed, "one": found[1], "many": found[options.draws], "gain": gain})
        print(
            f"seed {seed}: {found[1]:.2f} nats with one draw, {found[options.draws]:.2f} with {options.draws}: {gain:+.2f} "
            f"(K = {options.samples:,}, n = {options.images:,})",
            flush=True,
        )
    held = all(row["gain"] >= GAIN for row in rows)
    print(f"a gain of at least {GAIN} nats in every seed: {'as it must be' if held else 'NOT as it must be'}")
    content = {
        "epochs": options.epochs, "draws": options.draws, "samples": options.samples, "images": options.images, "config": CONFIG, "held": held,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "hardware": hardware(), "versions": versions(),
        "rows": rows,
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
