"""The variational autoencoder beside pythae's: examples a second, and likelihood at equal epochs.

    pip install ".[peers]"
    python benchmarks/peers.py [CASE ...] [--pairs 3]

The same networks in batches of 128 on Fashion-MNIST, binarised once, so that both see the same pixels: pythae's default dense
ones (784-512-16 and back, ReLU), and the convolutional ones with batch norm that it has for 28 x 28 images (on the first 3,000
only, which are slow enough). Each training is a process of its own, and turns alternate. Times are of the whole call, from the data in memory to
the trained model, with whatever each library does besides; `bare` is a loop that does nothing besides, in bfloat16: no average, no
validation, nothing saved or checked. No library that trains these networks in PyTorch can be much faster than that. The likelihood is the
importance-weighted bound of test images, by one function for all. Prints medians and writes benchmarks/results/peers.json, case by case.
"""

import argparse
import dataclasses
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
import torch.nn.functional as F
from torch import Tensor, nn

import pofx
from pofx import core, data, discovery, examples
from pofx.processor import keep_freed_memory
from pofx.run import hardware, versions

RESULTS = pathlib.Path(__file__).parent / "results" / "peers.json"
LATENT, BATCH = 16, 128
FASTER = 3.0


@dataclasses.dataclass(frozen=True)
class Case:
    """images, epochs: that are trained on, and passes over them. scored, samples: test images whose likelihood is taken, with so many
    draws each."""

    images: int
    epochs: int
    scored: int
    samples: int


CASES = {"dense": Case(60_000, 5, 1000, 500), "convolutional": Case(3_000, 2, 200, 50)}


class Heads(nn.Module):
    """Two linear maps of the same hidden layer, joined: the mean and the log variance of a posterior."""

    def __init__(self, hidden: nn.Module, mu: nn.Module, log_var: nn.Module) -> None:
        super().__init__()
        self.hidden, self.mu, self.log_var = hidden, mu, log_var

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x)
        return torch.cat((self.mu(hidden), self.log_var(hidden)), 1)


def networks(case: str) -> tuple[nn.Module, nn.Module, Any]:
    """Encoder and decoder of pythae's own as modules from tensor to tensor, and its model of them."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    if case == "dense":
        model = VAE(config)
        first, last = model.decoder.layers
        # The last layer ends in a sigmoid; a likelihood is safer from logits.
        decoder = nn.Sequential(*first, last[0], nn.Unflatten(1, (1, 28, 28)))
        hidden = nn.Sequential(nn.Flatten(), *model.encoder.layers)
    else:
        model = VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))
        first, *middle, last = model.decoder.layers
        decoder = nn.Sequential(first, nn.Unflatten(1, (1024, 4, 4)), *middle, last[0])
        hidden = nn.Sequential(*model.encoder.layers, nn.Flatten())
    return Heads(hidden, model.encoder.embedding, model.encoder.log_var), decoder, model


def binarised() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of 0 and 255, each pixel drawn once with its grey value as the chance."""
    dataset = data.load("fashion_mnist", data.Options(validation=0.0))
    assert dataset.test is not None
    random = np.random.default_rng(0)
    parts = (split.batch(torch.arange(len(split))).x.numpy()[:, 0] for split in (dataset.train, dataset.test))
    train, test = ((random.random(x.shape) < x).astype(np.uint8) * 255 for x in parts)
    return train, test


def read(train: np.ndarray) -> data.Dataset:
    """The images as a data set, which holds a tenth of them back for testing."""
    return data.from_arrays(train, options=data.Options(bits=1, validation=0.0))


def ours(case: str, train: np.ndarray, epochs: int) -> tuple[float, nn.Module, nn.Module]:
    """Seconds, and the trained encoder and decoder."""
    encoder, decoder, _ = networks(case)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        dataset = read(train)
        run = pofx.train(
            "vae", dataset, run=f"{folder}/run", epochs=epochs, batch_size=BATCH, latent_dim=LATENT, encoder=encoder, decoder=decoder,
            quiet=True, report=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        model: Any = pofx.load(run.path, encoder=encoder, decoder=decoder)
    return seconds, model.encoder.network, model.decoder.network


def theirs(case: str, train: np.ndarray, epochs: int) -> tuple[float, nn.Module, nn.Module]:
    """The same of pythae, from the images that ours trains on."""
    import logging
    import os

    os.environ["TQDM_DISABLE"] = "1"  # its bars would fill the screen
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)
    encoder, decoder, model = networks(case)
    split = read(train).train
    kept = (split.batch(split.positions()).x * 255).to(torch.uint8).numpy()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        x = torch.from_numpy(kept).float() / 255
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=1e-3, per_device_train_batch_size=BATCH, no_cuda=True
        )  # fmt: skip
        trainer = BaseTrainer(model=model, train_dataset=BaseDataset(x, torch.zeros(len(x))), training_config=config)
        trainer.train(log_output_dir=None)
        seconds = time.perf_counter() - start
    return seconds, encoder, decoder


def bare(case: str, train: np.ndarray, epochs: int) -> tuple[float, nn.Module, nn.Module]:
    """The same of a plain loop over the networks."""
    encoder, decoder, _ = networks(case)
    split = read(train).train
    x = split.batch(split.positions()).x
    keep_freed_memory()
    start = time.perf_counter()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    for _ in range(epochs):
        for positions in torch.randperm(len(x)).split(BATCH):
            part = x[positions]
            with torch.autocast("cpu", torch.bfloat16):
                mu, log_var = encoder(part).float().chunk(2, 1)
                logits = decoder(mu + (log_var / 2).exp() * torch.randn_like(mu)).float()
            likelihood = F.binary_cross_entropy_with_logits(logits, part, reduction="sum")
            loss = likelihood + (mu.square() + log_var.exp() - log_var - 1).sum() / 2
            adam.zero_grad()
            (loss / len(part)).backward()
            adam.step()
    return time.perf_counter() - start, encoder, decoder


def nll(encoder: nn.Module, decoder: nn.Module, test: np.ndarray, case: Case) -> float:
    """Nats an image, as the importance-weighted bound."""
    spec = core.DataSpec("images", (1, 28, 28), bits=1, size=len(test))
    cls: Any = discovery.model("vae")
    model = cls(spec, cls.Config(latent_dim=LATENT), encoder=encoder, decoder=decoder)
    x = torch.from_numpy(test[: case.scored, None]).float() / 255
    with examples.asking(model):
        return -float(torch.cat([model.log_prob(part, samples=case.samples).nats for part in x.split(50)]).mean())


WAYS = {"pofx": ours, "pythae": theirs, "bare": bare}


def turn(name: str, way: str, seed: int) -> tuple[float, float]:
    """Examples a second, and the likelihood."""
    case, (train, test) = CASES[name], binarised()
    torch.manual_seed(seed)
    seconds, encoder, decoder = WAYS[way](name, train[: case.images], case.epochs)
    return case.epochs * len(read(train[: case.images]).train) / seconds, nll(encoder, decoder, test, case)


def compared(name: str, pairs: int) -> dict[str, Any]:
    """All ways of one case by turns."""
    case = CASES[name]
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    nats: dict[str, list[float]] = {way: [] for way in WAYS}
    for pair in range(pairs):
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rate, found = pool.apply(turn, (name, way, pair))
            rates[way].append(rate)
            nats[way].append(found)
            print(f"{name:14s} seed {pair} {way:8s} {rate:10,.0f} examples a second, {found:.2f} nats", flush=True)
    speed, middle = ({way: statistics.median(found) for way, found in values.items()} for values in (rates, nats))
    ratio, most = (speed[way] / speed["pythae"] for way in ("pofx", "bare"))
    held = ratio >= FASTER and middle["pofx"] <= middle["pythae"]
    print(
        f"{name:14s} {ratio:.2f} times as fast (at least {FASTER:g}; a bare loop {most:.2f}), {middle['pofx']:.2f} against "
        f"{middle['pythae']:.2f} nats after {case.epochs} epochs (K = {case.samples}, n = {case.scored:,}): "
        f"{'as it must be' if held else 'NOT as it must be'}",
        flush=True,
    )
    made = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "threads": torch.get_num_threads()}
    return made | dataclasses.asdict(case) | {
        "batch": BATCH, "rates": rates, "ratio": ratio, "bare": most, "nats": nats, "held": held,
        "hardware": hardware(), "versions": versions(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    for name in options.cases:
        if name not in CASES:
            parser.error(f"there is no case {name!r}: {', '.join(CASES)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for name in options.cases:
        results[name] = compared(name, options.pairs)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(not all(results[name]["held"] for name in options.cases))


if __name__ == "__main__":
    sys.exit(main())
