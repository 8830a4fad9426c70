"""Makes the network that comes with pofx for Fashion-MNIST: python benchmarks/frozen.py [--epochs 20]

Trains a classifier with max-pooling, else by its own recipe, on the mirrored training part, with a fixed seed, one thread,
and bfloat16 where the processor gains by it: some four minutes. The validation part is watched, the test part looked at
once, at the end. Below 91 % on test nothing is written, else pofx/data/frozen/fashion_mnist.safetensors (float32, less
than a megabyte) and .json (its hash, accuracy and making). Metrics compare samples in the 64 features of its last hidden
layer, before the rectifier. Another machine gives another network of about the same accuracy; numbers quote its hash.

References:
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao, Rasul and Vollgraf, 2017),
    https://arxiv.org/abs/1708.07747
"""

import argparse
import dataclasses
import hashlib
import json
import sys

import numpy as np
import torch

from pofx import api, data, discovery, features
from pofx.core import Model
from pofx.data.dataset import Split
from pofx.run import hardware, versions
from pofx.settings import Settings
from pofx.trainer import Trainer

SOURCE, SEED, THREADS = "fashion_mnist", 0, 1
ENOUGH, BYTES = 0.91, 1_000_000
FITTED = 10_000


def accuracy(model: Model, split: Split) -> float:
    """The share of a part that is named right."""
    with torch.no_grad():
        right = sum(int((model.classify(batch.x).argmax(1) == batch.label).sum()) for batch in split.batches(512))  # type: ignore[operator]
    return right / len(split)


def main() -> None:
    """Trains, measures, writes."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=float, default=20)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    # Clothes stay what they are in a mirror.
    dataset = data.load(SOURCE, data.Options(flip=True))
    cls = discovery.model("classifier")
    chosen = api.recipe(cls, "classifier", dataset.spec, None)
    config = dataclasses.replace(chosen.config, architecture="pooling")
    settings = api.complete(Settings(epochs=options.epochs, seed=SEED), chosen)
    trainer = Trainer(api.build(cls, dataset.spec, config, SEED), dataset, settings, quiet=False)
    trainer.train()
    model = trainer.average.cpu().eval()
    assert dataset.validation is not None
    assert dataset.test is not None
    found = {"validation": accuracy(model, dataset.validation), "accuracy": accuracy(model, dataset.test)}
    print(f"{found['validation']:.2%} on validation, {found['accuracy']:.2%} on test after {trainer.seconds:.0f} s", flush=True)
    if found["accuracy"] < ENOUGH:
        sys.exit(f"less than {ENOUGH:.0%} on test: nothing is written")
    content = save({name: value.contiguous() for name, value in model.state_dict().items()})
    if len(content) >= BYTES:
        sys.exit(f"{len(content):,} bytes are too many: nothing is written")
    with torch.no_grad():
        some = dataset.train.positions(shuffle=0)[:FITTED].split(512)
        codes = np.concatenate([model.encode(dataset.train.batch(rows).x).numpy() for rows in some])  # type: ignore[operator]
    made = {
        "sha256": hashlib.sha256(content).hexdigest(),
        **found,
        "unit": features.unit(codes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "spec": dataset.spec.to_json(),
        "config": config.to_json(),
        "data": {"source": SOURCE, "fingerprint": dataset.fingerprint, "options": dict(dataset.options)},
        "made": "python benchmarks/frozen.py",
        "training": settings.to_json(),
        "precision": str(trainer.dtype).removeprefix("torch."),
        "threads": THREADS,
        "moves": trainer.clock.step,
        "seconds": round(trainer.seconds, 1),
        "versions": versions(),
        "hardware": hardware(),
    }
    features.FROZEN.mkdir(parents=True, exist_ok=True)
    path = features.FROZEN / f"{SOURCE}.safetensors"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(content):,} bytes, sha256 {made['sha256']}")


if __name__ == "__main__":
    main()
