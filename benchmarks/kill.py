"""Runs `pofx` in this process and kills it with SIGKILL at a chosen point: python benchmarks/kill.py POINT ARGUMENTS OF pofx ...

POINT is
    never            let it end;
    loss:PLAYER:K    inside the K-th call of a player's loss (with --accumulate 2, an even K is in mid-accumulation);
    fit:K            while a model without players takes in the K-th batch of its pass;
    save:K           inside the K-th write or flush of a file, with half of a written file's bytes on the disk;
    rollback:K       before the K-th write, flush or rename of a file after a training that diverges began to go back.

It also is what `tests/test_resume.py` and `benchmarks/resume.py` share: tiny data, the kill, the hashes to compare.
"""

import dataclasses
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pofx import checkpoint, data, discovery, recovery
from pofx.core import Batch, Budget, Classes, DataSpec, Loss, Model, UsageError

STATE = ("weights.safetensors", "ema.safetensors", "training.safetensors")
ROUNDS = 12


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_loss(model: type[Model], player: str, call: int) -> None:
    """The chosen call computes its loss, and so has changed what memory it changes, and never returns."""
    players, calls = model.players, 0

    def deadly(loss):  # noqa: ANN001, ANN202
        def wrapped(batch) -> Loss:  # noqa: ANN001
            nonlocal calls
            calls += 1
            result = loss(batch)
            if calls == call:
                _die()
            return result

        return wrapped

    def patched(self: Model):  # noqa: ANN202
        return tuple(dataclasses.replace(p, loss=deadly(p.loss)) if p.name == player else p for p in players(self))

    model.players = patched  # type: ignore[method-assign]


def _kill_in_fit(model: type[Model], batch: int) -> None:
    fit = model.fit

    def deadly(batches: Iterator[Batch]) -> Iterator[Batch]:
        for number, taken in enumerate(batches, 1):
            yield taken
            if number == batch:
                _die()

    model.fit = lambda self, batches: fit(self, deadly(batches))  # type: ignore[method-assign]


def _kill_in_save(call: int) -> None:
    write, flush, calls = checkpoint.write_bytes, checkpoint.flush, 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return calls == call

    def deadly_write(path: pathlib.Path, content: bytes) -> None:
        if count():
            path.write_bytes(content[: len(content) // 2])
            _die()
        write(path, content)

    def deadly_flush(path: pathlib.Path) -> None:
        if count():
            _die()
        flush(path)

    checkpoint.write_bytes, checkpoint.flush = deadly_write, deadly_flush


def _kill_in_rollback(call: int) -> None:
    roll_back, calls = recovery.roll_back, 0

    def counting(whole: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                _die()
            return whole(*arguments)

        return counted

    def deadly(*arguments: Any) -> None:
        checkpoint.write_bytes, checkpoint.flush = counting(checkpoint.write_bytes), counting(checkpoint.flush)
        pathlib.Path.rename = counting(pathlib.Path.rename)  # type: ignore[method-assign]
        roll_back(*arguments)

    recovery.roll_back = deadly


def data_for(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """Tiny data of the first kind that a model takes, written into `folder`, and the flags that go with them."""
    kinds, random = discovery.model(name).kinds, np.random.default_rng(0)
    if "images" in kinds:
        path, flags = folder / "images.npz", ["--batch-size", "8"]
        np.savez(path, x=random.integers(0, 256, (64, 8, 8), dtype=np.uint8), label=np.arange(64) % 3)
    elif "tokens" in kinds:
        path, flags = folder / "text.txt", ["--batch-size", "4"]
        path.write_text("".join(random.choice(list("abcd \n"), 2000)), encoding="utf-8")
    else:
        path, flags = folder / "vectors.npy", ["--batch-size", "8"]
        shape = (64, 3) if "vectors" in kinds else (64, 5, 2)
        np.save(path, random.standard_normal(shape).astype(np.float32))
        flags += [] if "vectors" in kinds else ["--data.kind", "sequences"]
    return path, flags


def first() -> str:
    """The name of the first model."""
    return discovery.names("models")[0]


def trained_models() -> list[str]:
    """The names of all models but those that are made of trained runs, which refuse to be trained whatever the data."""

    def trains(name: str) -> bool:
        cls = discovery.model(name)
        try:
            cls.recipe(DataSpec(min(cls.kinds), (1, 8, 8), label=Classes(("a", "b")), size=100, vocabulary=9, bits=8), None)
        except UsageError as error:
            return "made of trained runs" not in str(error)
        return True

    return [name for name in discovery.names("models") if trains(name)]


def tiny(name: str, folder: pathlib.Path) -> Model:
    """The model that `arguments` trains, untrained."""
    path, flags = data_for(name, folder)
    options = data.Options(kind="sequences") if "--data.kind" in flags else data.Options()
    cls, spec = discovery.model(name), data.load(path, options).spec
    return cls(spec, cls.recipe(spec, Budget(steps=ROUNDS)).config)


def arguments(name: str, folder: pathlib.Path, run: pathlib.Path, *extra: str, accumulate: int = 1, rounds: int = ROUNDS) -> list[str]:
    """A training of a few rounds that saves often, with `extra` flags."""
    path, flags = data_for(name, folder)
    return [
        "train", name, "--data", str(path), "--run", str(run), "--steps", str(rounds), "--checkpoint-every", "5",
        "--accumulate", str(accumulate), "--quiet", *flags, *extra,
    ]  # fmt: skip


def child(point: str, argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """This file in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, __file__, point, *argv], env=env, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


def hashes(run: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the state after the last move."""
    folder = checkpoint.folder(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])
    return {f"{folder.name}/{name}": hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in STATE}


def main() -> None:
    """Sets the trap and trains."""
    from pofx.cli import main as pofx

    point, *argv = sys.argv[1:]
    kind, _, where = point.partition(":")
    if kind == "loss":
        player, call = where.split(":")
        _kill_in_loss(discovery.model(argv[1]), player, int(call))
    elif kind == "fit":
        _kill_in_fit(discovery.model(argv[1]), int(where))
    elif kind == "save":
        _kill_in_save(int(where))
    elif kind == "rollback":
        _kill_in_rollback(int(where))
    elif kind != "never":
        sys.exit(f"there is no point {point!r}: give never, loss:PLAYER:K, fit:K, save:K or rollback:K")
    sys.exit(pofx(argv))


if __name__ == "__main__":
    main()
