"""Forecasts of the last quarter of held-out windows from what comes before: how good they are, and whether their intervals hold."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from pofx import forecasting
from pofx.core import Forecasts
from pofx.findings import Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Forecasts,)
kinds = frozenset({"sequences"})

#: Held-out windows without `full` and with it; futures drawn of each with it; the share that an interval should hold.
SOME, MANY, DRAWS, SHARE = 200, 2000, 1000, 0.9


def measure(subject: "Subject") -> Iterator[Row]:
    """The CRPS, the absolute error of the median, and the share of numbers inside of 90 % intervals, a mean over steps and features."""
    if subject.model.spec.shape[0] < 2:
        return
    horizon = forecasting.horizon_of(subject.model.spec.shape[0])
    x = torch.cat([batch.x.cpu() for batch in subject.batches(MANY if subject.full else SOME)])
    past, future = x[:, :-horizon], x[:, -horizon:].numpy().astype(np.float64)
    drawn = forecasting.futures(subject.model, past, horizon, draws=DRAWS if subject.full else forecasting.DRAWS)
    trivial = forecasting.baselines(subject.train.train, horizon)
    given = past.numpy().astype(np.float64)

    def row(name: str, unit: str, mine: np.ndarray, theirs: dict[str, np.ndarray], **fields: object) -> Row:
        value, error, draws = mean(mine.reshape(len(mine), -1).mean(1))
        return Row(
            about="forecasts", name=name, unit=unit, model=value, error=error, draws=draws, n=len(x),
            baselines={name: float(values.mean()) for name, values in theirs.items()},
            space=f"the last {horizon} of {x.shape[1]} steps", **fields,  # type: ignore[arg-type]
        )  # fmt: skip

    score = forecasting.crps(drawn, future)
    unit = "standard deviations of the data"
    yield row("CRPS of forecasts", unit, score, {name: each.crps(given, future) for name, each in trivial.items()}, meaning=(
        "how far a forecast with its uncertainty is from what came; of a certain one its absolute error"
    ))  # fmt: skip
    error = np.abs(np.median(drawn, 0) - future)
    yield row("absolute error of forecasts", unit, error, {name: np.abs(each.mean(given) - future) for name, each in trivial.items()})
    inside = _inside(forecasting.interval(drawn, SHARE), future)
    theirs = {name: _inside(each.interval(given, SHARE), future) for name, each in trivial.items()}
    yield row(
        f"coverage of {SHARE:.0%} intervals", "share of held-out values", inside, theirs, better="floor", floor=SHARE,
        note="real: what they promise",
    )  # fmt: skip


def _inside(interval: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    low, high = interval
    return ((low <= x) & (x <= high)).astype(np.float64)
