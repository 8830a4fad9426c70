"""Minutes that mean the same on every day: by the clock on an idle machine, by the rounds of its last idle run on a busy one.

A recipe may depend on whether minutes or rounds are its budget. What is trained is always what it says for the minutes, and a record of
rounds says which config they were rounds of.
"""

import argparse
import dataclasses
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch

import pofx
from pofx import api, discovery
from pofx.core import Budget, UsageError
from pofx.data import Dataset
from pofx.run import Run

#: Billions of operations a second, in a product of bfloat16 matrices, from which on this kind of machine counts as idle.
IDLE = 1500.0
#: What an idle machine made of some minutes: its `rounds`, and what they were rounds of, as `described` gives it. Of older results the
#: rounds alone.
Record = Mapping[str, Any] | int


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


def flags(parser: argparse.ArgumentParser, *, rehearsal: bool = False) -> None:
    """Adds what a script is asked about its minutes: --any-speed, and --rehearse where it can rehearse them."""
    parser.add_argument("--any-speed", action="store_true", help="go by the clock of a busy machine")
    if rehearsal:
        parser.add_argument(
            "--rehearse", action="store_true", help="only record how many rounds the minutes are, by one minute on an idle machine"
        )


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


def said(model: str, dataset: Dataset, minutes: float, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `pofx.train` is told beside the budget: all that the recipe for these minutes says, with `config` in its place."""
    cls = discovery.model(model)
    chosen = api.recipe(cls, model, dataset.spec, Budget(minutes=minutes))
    fields = {field.name for field in dataclasses.fields(chosen.config)}
    mine = {name: value for name, value in config.items() if name in fields}
    settings = {name: value for name, value in config.items() if name not in fields}
    return {
        "model_config": dataclasses.replace(chosen.config, **mine),
        "batch_size": chosen.batch_size,
        "ema": chosen.ema,
        **settings,
    }


def rounds_now(record: Record | None, told: Mapping[str, Any]) -> int | None:
    """The rounds of a record. Stops with a sentence where they are those of another configuration than is trained now."""
    if record is None or isinstance(record, int):
        return record
    now = told["model_config"]
    try:
        same = type(now).from_json(record["config"]) == now and all(record[name] == told[name] for name in ("batch_size", "ema"))
    except UsageError:  # a field that is no longer there
        same = False
    if not same:
        raise SystemExit("the recorded rounds are those of another configuration than the recipe has now: rehearse them on an idle machine")
    return int(record["rounds"])


def trained(
    model: str,
    dataset: Dataset,
    path: pathlib.Path,
    seed: int,
    minutes: float,
    record: Record | None,
    *,
    any_speed: bool = False,
    **config: Any,
) -> Run:
    """The finished run of a model; one that was interrupted goes on with the budget that it began with, on an idle machine if
    that is a clock's.

    Arguments:
        path: of the run; that of a busy machine's clock has -busy behind it.
        record: of the last idle run, None where there was none. any_speed: go by the clock of a busy machine.
        config: fields of the model's config, and settings of the trainer, beside its recipe.
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
    told = said(model, dataset, minutes, config)
    amount = budget(minutes, None if speed >= IDLE else rounds_now(record, told), speed)
    return pofx.train(model, dataset, run=path, seed=seed, quiet=True, report=False, **cast(Any, amount), **told)


def rehearsed(model: str, dataset: Dataset, minutes: float, **config: Any) -> Record:
    """What an idle machine makes of `minutes`, a record, from a training of one minute that walks through the whole schedule.

    What is then trained for these rounds may share the machine with other work. Stops with a sentence where the machine is busy.
    """
    budget(1.0, None, gigaflops())
    with tempfile.TemporaryDirectory() as folder:
        told = said(model, dataset, minutes, config)
        run = pofx.train(model, dataset, run=f"{folder}/run", minutes=1.0, quiet=True, report=False, **told)
        row = described(run)
        return with_rounds(recorded(row), row["rounds"] * minutes)


def described(run: Run) -> dict[str, Any]:
    """What was trained, and how much."""
    return {
        "rounds": run.info["examples"] // run.info["training"]["batch_size"],
        "by_the_clock": not run.info["exact"],
        "seconds": run.info["seconds"],
        "parameters": run.info["parameters"],
        "config": run.info["config"],
        "batch_size": run.info["training"]["batch_size"],
        "ema": run.info["training"]["ema"],
    }


def recorded(row: Mapping[str, Any]) -> Record:
    """The record in a row as `described` gives it; in older rows there are rounds alone."""
    names = ("rounds", "config", "batch_size", "ema")
    return {name: row[name] for name in names} if all(name in row for name in names) else int(row["rounds"])


def idle_rounds(rows: Iterable[Mapping[str, Any]]) -> Record | None:
    """A record of the trainings that the clock of an idle machine ended, of rows as `described` gives them, with their mean rounds;
    None: there are none."""
    clocked = [row for row in rows if row["by_the_clock"]]
    if not clocked:
        return None
    return with_rounds(recorded(clocked[-1]), statistics.mean(row["rounds"] for row in clocked))


def kept(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What is written of a system: its rows seed by seed, and the record of all that the clock of an idle machine ended.

    Arguments:
        before: what was written last. row: of one training; `any_speed` is true of one that went by the clock of a busy machine.
    """
    seeds = {**before.get("seeds", {}), str(row["seed"]): row}
    clocked = idle_rounds(row for row in seeds.values() if not row.get("any_speed"))
    return {"idle_rounds": clocked or before.get("idle_rounds"), "seeds": seeds}


def rounds(record: Record) -> int:
    """The rounds of a record."""
    return record if isinstance(record, int) else int(record["rounds"])


def with_rounds(record: Record, number: float) -> Record:
    """The record with another number of rounds."""
    return round(number) if isinstance(record, int) else {**record, "rounds": round(number)}
