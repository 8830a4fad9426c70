"""How fast the trainer is, against the loop that a person would write and against its own tricks without a trainer.

    python benchmarks/speed.py [--seconds 3] [--pairs 7]

Three ways of training the same modules with the same losses on batches of the same size, each in a process of its own
(what the trainer tells the memory allocator is its trick, not the others'), by turns:
    trainer   pofx.trainer, with whatever it chooses on this machine (precision, memory format, optimizer);
    plain     DataLoader of float images, float32, torch.optim.Adam as it comes;
    bare      the trainer's tricks (its precision, channels_last, fused Adam, allocator, averaged weights, clipping, finite check) in a
              bare loop.
Prints medians of rounds a second, their ratios, and what the trainer costs above the bare loop; writes
benchmarks/results/speed.json. Fashion-MNIST where it is installed, else random images.
"""

import argparse
import copy
import itertools
import json
import math
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from pofx import data, discovery
from pofx.core import Batch, Model, UsageError, precision
from pofx.processor import flushed_subnormals, keep_freed_memory
from pofx.run import hardware, versions
from pofx.settings import Settings, pick_precision
from pofx.trainer import Trainer

RESULTS = pathlib.Path(__file__).parent / "results" / "speed.json"
BATCH = 128
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder conv": ("autoencoder", {"latent_dim": None, "architecture": "conv"}),
    "gan conv R1": ("gan", {"architecture": "conv"}),
    "vae dense 784-512-16": ("vae", {"latent_dim": 16, "hidden": (512,), "activation": "silu", "norm": False, "likelihood": "bernoulli"}),
}
WAYS = ["trainer", "plain", "bare"]
Rounds = Callable[[int], None]


def images() -> tuple[str, data.Dataset]:
    """60,000 images of 28x28 and where they come from."""
    try:
        return "fashion_mnist", data.load("fashion_mnist", data.Options(validation=0.0))
    except UsageError:
        x = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8)
        return "random", data.from_arrays(x, options=data.Options(validation=0.0))


def with_trainer(model: Model, dataset: data.Dataset, batch: int) -> Rounds:
    """Rounds of the trainer itself: its whole loop, to the end of a budget that grows each time."""
    trainer = Trainer(model, dataset, Settings(steps=1, batch_size=batch, ema=0.999))

    def rounds(n: int) -> None:
        trainer.rounds = trainer.clock.round + n
        with precision(trainer.dtype), flushed_subnormals():
            trainer._walk()

    return rounds


def plain(model: Model, dataset: data.Dataset, batch: int) -> Rounds:
    """What a person would write."""
    x = dataset.train.batch(torch.arange(len(dataset.train))).x
    loader = DataLoader(TensorDataset(x), batch_size=batch, shuffle=True, drop_last=True)
    batches = (Batch(x) for _ in itertools.count() for (x,) in loader)
    model.train()
    players = model.players()
    optimizers = [
        torch.optim.Adam([p for _, p in player.parameters()], lr=player.optimizer.lr, betas=player.optimizer.betas) for player in players
    ]

    def rounds(n: int) -> None:
        for _ in range(n):
            for player, optimizer in zip(players, optimizers, strict=True):
                if len(players) > 1:
                    model.requires_grad_(False)
                    for _, parameter in player.parameters():
                        parameter.requires_grad_(True)
                optimizer.zero_grad()
                player.loss(next(batches)).total.backward()
                optimizer.step()

    return rounds


def bare(model: Model, dataset: data.Dataset, batch: int) -> Rounds:
    """The trainer's tricks without the trainer."""
    keep_freed_memory()
    dtype = pick_precision("auto", torch.device("cpu"))
    model = model.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).requires_grad_(False)
    players = model.players()
    own = [[p for _, p in player.parameters()] for player in players]
    optimizers = [
        torch.optim.Adam(parameters, lr=player.optimizer.lr, betas=player.optimizer.betas, fused=True)
        for player, parameters in zip(players, own, strict=True)
    ]
    names = {id(value): name for name, value in model.named_parameters()}
    averages = dict(average.named_parameters())
    pairs = [[(averages[names[id(p)]], p.detach()) for p in parameters] for parameters in own]

    def batches() -> Iterator[Batch]:
        while True:
            for rows in dataset.train.positions(shuffle=0).split(batch):
                if len(rows) == batch:
                    yield dataset.train.batch(rows, training=0)

    source = batches()

    def rounds(n: int) -> None:
        with precision(dtype):
            for _ in range(n):
                for player, parameters, optimizer, pair in zip(players, own, optimizers, pairs, strict=True):
                    if len(players) > 1:
                        model.requires_grad_(False)
                        for parameter in parameters:
                            parameter.requires_grad_(True)
                    optimizer.zero_grad()
                    total = player.loss(next(source)).total
                    total.backward()
                    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
                    if not (math.isfinite(total.item()) and math.isfinite(norm.item())):
                        raise FloatingPointError("the loss is not finite")
                    optimizer.step()
                    with torch.no_grad():
                        for mine, value in pair:
                            mine.lerp_(value, 0.001)

    return rounds


def rate(rounds: Rounds, n: int) -> float:
    """Rounds a second over n of them."""
    start = time.perf_counter()
    rounds(n)
    return n / (time.perf_counter() - start)


def worker(way: str, name: str, fields: dict[str, Any], batch: int, pipe: Connection) -> None:
    """Trains one model in one way: tells its number of parameters and its precision, then for each number of rounds the rate."""
    cls, (_, dataset) = discovery.model(name), images()
    torch.manual_seed(0)
    model = cls(dataset.spec, cls.Config(**fields))
    # What changes with progress is as it is at the end, for loops that have no budget.
    model.progress.fill_(1.0)
    dtype = pick_precision("auto", torch.device("cpu"))
    rounds = {"trainer": with_trainer, "plain": plain, "bare": bare}[way](model, dataset, batch)
    rounds(5)
    pipe.send((sum(p.numel() for p in model.parameters()), str(dtype).removeprefix("torch.")))
    while n := pipe.recv():
        pipe.send(rate(rounds, n))


def turns(
    name: str, fields: dict[str, Any], ways: Sequence[str], *, batch: int, pairs: int, seconds: float
) -> tuple[int, str, dict[str, list[float]]]:
    """Parameters, precision, and rounds a second of each way of training a model, in `pairs` turns of about `seconds` each."""
    spawn = multiprocessing.get_context("spawn")
    pipes, told = {}, {}
    for way in ways:
        pipes[way], theirs = spawn.Pipe()
        spawn.Process(target=worker, args=(way, name, fields, batch, theirs), daemon=True).start()
        told[way] = pipes[way].recv()
    assert len({parameters for parameters, _ in told.values()}) == 1

    def turn(way: str, n: int) -> float:
        pipes[way].send(n)
        return float(pipes[way].recv())

    counts = {way: max(3, round(seconds * turn(way, 5))) for way in ways}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(pairs):
        # The order alternates, so that drift of the machine falls on all alike.
        for way in ways[:: 1 if number % 2 == 0 else -1]:
            rates[way].append(turn(way, counts[way]))
    for pipe in pipes.values():
        pipe.send(0)
    return (*told["trainer"], rates)


def measure(case: str, pairs: int, seconds: float) -> dict[str, object]:
    """Medians over `pairs` turns of the three ways, about `seconds` each turn, and the median of paired ratios."""
    name, fields = CASES[case]
    parameters, dtype, rates = turns(name, fields, WAYS, batch=BATCH, pairs=pairs, seconds=seconds)
    paired = zip(rates["trainer"], rates["plain"], rates["bare"], strict=True)
    ratios = [(ours / theirs, tricks / ours - 1) for ours, theirs, tricks in paired]
    return {
        "parameters": parameters,
        "precision": dtype,
        **{way: round(statistics.median(values), 2) for way, values in rates.items()},
        "times plain": round(statistics.median(ratio for ratio, _ in ratios), 2),
        "overhead": round(statistics.median(cost for _, cost in ratios), 3),
    }


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    source, _ = images()
    found = {}
    print(f"{source}, batch {BATCH}, {torch.get_num_threads()} threads; rounds a second")
    columns = ("parameters", "precision", "trainer", "plain", "bare", "times plain", "overhead")
    print("case".ljust(24) + "".join(column.rjust(13) for column in columns))
    for case in CASES:
        row = found[case] = measure(case, options.pairs, options.seconds)
        cells = [f"{row[column]:+.1%}" if column == "overhead" else str(row[column]) for column in columns]
        print(case.ljust(24) + "".join(cell.rjust(13) for cell in cells), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"data": source, "batch": BATCH, "hardware": hardware(), "versions": versions(), "cases": found}, indent=1) + "\n",
        encoding="utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    main()
