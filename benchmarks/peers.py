"""The variational autoencoder beside pythae's: examples a second, and likelihood at equal epochs.

    pip install ".[peers]"
    python benchmarks/peers.py [--pairs 3]

The same networks in batches of 128 on Fashion-MNIST, binarised once, so that both see the same pixels: pythae's default dense
ones (784-512-16 and back, ReLU), and the convolutional ones with batch norm that it has for 28 x 28 images (on the first 6,000
only, which are slow enough). Each training is a process of its own, and turns alternate. Times are of the whole call, from the data in memory to
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
LATENT, BATCH, IMPORTANCE, SCORED = 16, 128, 500, 1000
FASTER = 3.0
#: Networks -> training images, and passes over them.
CASES = {"dense": (60_000, 5), "convolutional": (6_000, 2)}


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


def nll(encoder: nn.Module, decoder: nn.Module, test: np.ndarray) -> float:
    """Nats an image, as the importance-weighted bound."""
    spec = core.DataSpec("images", (1, 28, 28), bits=1, size=len(test))
    cls: Any = discovery.model("vae")
    model = cls(spec, cls.Config(latent_dim=LATENT), encoder=encoder, decoder=decoder)
    x = torch.from_numpy(test[:SCORED, None]).float() / 255
    with examples.asking(model):
        return -float(torch.cat([model.log_prob(part, samples=IMPORTANCE).nats for part in x.split(50)]).mean())


WAYS = {"pofx": ours, "pythae": theirs}


def turn(case: str, way: str, seed: int) -> tuple[float, float]:
    """Examples a second, and the likelihood."""
    train, test = binarised()
    images, epochs = CASES[case]
    torch.manual_seed(seed)
    seconds, encoder, decoder = WAYS[way](case, train[:images], epochs)
    return epochs * len(read(train[:images]).train) / seconds, nll(encoder, decoder, test)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for case, (images, epochs) in CASES.items():
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        nats: dict[str, list[float]] = {way: [] for way in WAYS}
        for pair in range(options.pairs):
            for way in WAYS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rate, found = pool.apply(turn, (case, way, pair))
                rates[way].append(rate)
                nats[way].append(found)
                print(f"{case:14s} seed {pair} {way:8s} {rate:10,.0f} examples a second, {found:.2f} nats", flush=True)
        ratio = statistics.median(rates["pofx"]) / statistics.median(rates["pythae"])
        middle = {way: statistics.median(found) for way, found in nats.items()}
        held = ratio >= FASTER and middle["pofx"] <= middle["pythae"]
        results[case] = {"images": images, "epochs": epochs, "rates": rates, "ratio": ratio, "nats": nats, "held": held}
        print(
            f"{case:14s} {ratio:.2f} times as fast (at least {FASTER:g}), {middle['pofx']:.2f} against {middle['pythae']:.2f} nats after {epochs} "
            f"epochs (K = {IMPORTANCE}, n = {SCORED:,}): {'as it must be' if held else 'NOT as it must be'}"
        )
    content = {
        "batch": BATCH, "cases": results, "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(), "versions": versions(),
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(not all(case["held"] for case in results.values()))


if __name__ == "__main__":
    sys.exit(main())
