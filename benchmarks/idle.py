"""Minutes that mean the same on every day: by the clock on an idle machine, by the rounds of its last idle run on a busy one."""

import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch

import pofx
from pofx.data import Dataset
from pofx.run import Run

#: Billions of operations a second, in a product of bfloat16 matrices, from which on this kind of machine counts as idle.
IDLE = 1500.0


def gigaflops(size: int = 2048, times: int = 10) -> float:
    """Billions of operations a second in a product of two bfloat16 matrices: the median of several."""
    a, b = torch.randn(2, size, size).bfloat16()
    a @ b
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / sorted(seconds)[times // 2] / 1e9


def budget(minutes: float, rounds: int | None, speed: float) -> dict[str, float]:
    """The budget of a training as `pofx.train` takes it: `minutes` on an idle machine, else the recorded `rounds`.

    Stops with a sentence where the machine is busy and no rounds are recorded.
    """
    if speed >= IDLE:
        return {"minutes": minutes}
    if rounds is None:
        raise SystemExit(
            f"this machine is busy ({speed:,.0f} GFLOP/s, idle is {IDLE:,.0f}) and no idle run of {minutes:g} minutes has recorded its "
            "rounds: wait until it is idle, or give --any-speed to go by its clock all the same"
        )
    return {"steps": rounds}


def trained(
    model: str,
    dataset: Dataset,
    path: pathlib.Path,
    seed: int,
    minutes: float,
    rounds: int | None,
    *,
    any_speed: bool = False,
    **config: Any,
) -> Run:
    """The finished run of a model; one that was interrupted goes on with the budget that it began with, on an idle machine if
    that is a clock's.

    Arguments:
        path: of the run; that of a busy machine's clock has -busy behind it.
        rounds: of its last idle run, None where there was none. any_speed: go by the clock of a busy machine.
        config: fields of the model's config, beside its recipe.
    """
    path = path.with_name(path.name + "-busy") if any_speed else path
    speed = math.inf if any_speed else gigaflops()
    if path.exists():
        old = Run.read(path)
        if old.info["status"] == "finished":
            return old
        if not old.info["exact"]:
            budget(minutes, None, speed)
        return pofx.train(model, dataset, run=path, resume=True, quiet=True, report=False)
    amount = budget(minutes, rounds, speed)
    return pofx.train(model, dataset, run=path, seed=seed, quiet=True, report=False, **cast(Any, amount), **config)


def rehearsed(model: str, dataset: Dataset, minutes: float, **config: Any) -> int:
    """Rounds that an idle machine makes in `minutes`, from a training of one minute that walks through the whole schedule.

    What is then trained for these rounds may share the machine with other work. Stops with a sentence where the machine is busy.
    """
    budget(1.0, None, gigaflops())
    with tempfile.TemporaryDirectory() as folder:
        run = pofx.train(model, dataset, run=f"{folder}/run", minutes=1.0, quiet=True, report=False, **cast(Any, config))
        return round(described(run)["rounds"] * minutes)


def described(run: Run) -> dict[str, Any]:
    """How much was trained."""
    return {
        "rounds": run.info["examples"] // run.info["training"]["batch_size"],
        "by_the_clock": not run.info["exact"],
        "seconds": run.info["seconds"],
        "parameters": run.info["parameters"],
    }


def idle_rounds(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """Mean rounds of the trainings that the clock of an idle machine ended, of rows as `described` gives them; None: there are none."""
    rounds = [row["rounds"] for row in rows if row["by_the_clock"]]
    return round(statistics.mean(rounds)) if rounds else None
