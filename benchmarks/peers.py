"""The variational autoencoder beside pythae's: examples a second, and likelihood at equal epochs.

    pip install ".[peers]"
    python benchmarks/peers.py [--epochs 5] [--pairs 3]

The same two networks (784-512-16 and back, ReLU) in batches of 128 on Fashion-MNIST, binarised once, so that both see the same
pixels; each training is a process of its own, and turns alternate. Times are of the whole call, from the data in memory to
the trained model, with whatever each library does besides. The likelihood is the importance-weighted bound of 1,000 test images,
K = 500, by one function for both. Prints medians and writes benchmarks/results/peers.json.
"""

import argparse
import datetime
import json
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pofx
from pofx import core, data, discovery, examples
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "peers.json"
LATENT, WIDTH, BATCH, IMPORTANCE, SCORED = 16, 512, 128, 500, 1000
FASTER = 3.0


class Heads(nn.Module):
    """Two linear maps of the same hidden layer, joined: the mean and the log variance of a posterior."""

    def __init__(self, hidden: nn.Module, mu: nn.Module, log_var: nn.Module) -> None:
        super().__init__()
        self.hidden, self.mu, self.log_var = hidden, mu, log_var

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x.flatten(1))
        return torch.cat((self.mu(hidden), self.log_var(hidden)), 1)


def binarised() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of 0 and 255, each pixel drawn once with its grey value as the chance."""
    dataset = data.load("fashion_mnist", data.Options(validation=0.0))
    assert dataset.test is not None
    random = np.random.default_rng(0)
    parts = (split.batch(torch.arange(len(split))).x.numpy()[:, 0] for split in (dataset.train, dataset.test))
    train, test = ((random.random(x.shape) < x).astype(np.uint8) * 255 for x in parts)
    return train, test


def ours(train: np.ndarray, epochs: int) -> tuple[float, nn.Module, nn.Module]:
    """Seconds, and the trained encoder and decoder."""
    encoder = Heads(nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU()), nn.Linear(WIDTH, LATENT), nn.Linear(WIDTH, LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 784), nn.Unflatten(1, (1, 28, 28)))
    dataset = data.from_arrays(train, options=data.Options(bits=1, validation=0.0))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = pofx.train(
            "vae", dataset, run=f"{folder}/run", epochs=epochs, batch_size=BATCH, latent_dim=LATENT, encoder=encoder, decoder=decoder,
            quiet=True, report=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        model: Any = pofx.load(run.path, encoder=encoder, decoder=decoder)
    return seconds, model.encoder.network, model.decoder.network


def theirs(train: np.ndarray, epochs: int) -> tuple[float, nn.Module, nn.Module]:
    """The same of pythae."""
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce"))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        x = torch.from_numpy(train[:, None]).float() / 255
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=1e-3, per_device_train_batch_size=BATCH, no_cuda=True
        )  # fmt: skip
        trainer = BaseTrainer(model=model, train_dataset=BaseDataset(x, torch.zeros(len(x))), training_config=config)
        trainer.train(log_output_dir=None)
        seconds = time.perf_counter() - start
    model.eval()
    encoder = Heads(nn.Sequential(*model.encoder.layers), model.encoder.embedding, model.encoder.log_var)
    first, last = model.decoder.layers
    # Its last layer ends in a sigmoid; a likelihood is safer from logits.
    return seconds, encoder, nn.Sequential(*first, last[0], nn.Unflatten(1, (1, 28, 28)))


def nll(encoder: nn.Module, decoder: nn.Module, test: np.ndarray) -> float:
    """Nats an image, as the importance-weighted bound."""
    spec = core.DataSpec("images", (1, 28, 28), bits=1, size=len(test))
    cls: Any = discovery.model("vae")
    model = cls(spec, cls.Config(latent_dim=LATENT), encoder=encoder, decoder=decoder)
    x = torch.from_numpy(test[:SCORED, None]).float() / 255
    with examples.asking(model):
        return -float(torch.cat([model.log_prob(part, samples=IMPORTANCE).nats for part in x.split(50)]).mean())


WAYS = {"pofx": ours, "pythae": theirs}


def turn(way: str, epochs: int, scored: bool) -> tuple[float, float | None]:
    """Examples a second, and the likelihood where it is asked for."""
    train, test = binarised()
    torch.manual_seed(0)
    seconds, encoder, decoder = WAYS[way](train, epochs)
    return epochs * len(train) / seconds, nll(encoder, decoder, test) if scored else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    nats: dict[str, float] = {}
    for pair in range(options.pairs):
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rate, found = pool.apply(turn, (way, options.epochs, pair == 0))
            rates[way].append(rate)
            if found is not None:
                nats[way] = found
            print(f"{way:8s} {rate:10,.0f} examples a second" + (f", {found:.2f} nats" if found is not None else ""), flush=True)
    ratio = statistics.median(rates["pofx"]) / statistics.median(rates["pythae"])
    held = ratio >= FASTER and nats["pofx"] <= nats["pythae"]
    print(
        f"{ratio:.2f} times as fast (at least {FASTER:g}), {nats['pofx']:.2f} against {nats['pythae']:.2f} nats after {options.epochs} epochs "
        f"(K = {IMPORTANCE}, n = {SCORED:,}): {'as it must be' if held else 'NOT as it must be'}"
    )
    content = {
        "epochs": options.epochs, "batch": BATCH, "rates": rates, "ratio": ratio, "nats": nats, "held": held,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "hardware": hardware(), "versions": versions(),
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
