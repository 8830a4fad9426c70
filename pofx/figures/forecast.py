"""Held-out windows, and what the model, a linear and a naive forecast say of their last quarter, each with its intervals."""

import numpy as np
import torch
from matplotlib.figure import Figure

from pofx import examples, figures, forecasting
from pofx.core import Forecasts, Model
from pofx.data.dataset import Dataset
from pofx.run import Run

needs = (Forecasts,)

#: Windows that are shown, those that the numbers are means of, and the shares of the intervals, the wide one first.
SHOWN, MEASURED, SHARES = 4, 200, (0.9, 0.5)
BACK, ROOM = 2, 0.3
"""The past is shown so many times as long as the forecast; room above and below what came, as a share of its range."""


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The first feature of the first windows, in units of the source; CRPS and coverage are of all features of up to 200."""
    part, held = examples.held_out(dataset)
    x = examples.first(held, MEASURED).x
    horizon = forecasting.horizon_of(x.shape[1])
    past, future = x[:, :-horizon].numpy().astype(np.float64), x[:, -horizon:].numpy().astype(np.float64)
    drawn = forecasting.futures(model, x[:, :-horizon], horizon, seed=seed)
    name = str(run.info["model"]) if run is not None else type(model).__name__
    columns = {name: (np.median(drawn, 0), [forecasting.interval(drawn, share) for share in SHARES], forecasting.crps(drawn, future))}
    for other, each in reversed(forecasting.baselines(dataset.train, horizon).items()):
        columns[other] = (each.mean(past), [each.interval(past, share) for share in SHARES], each.crps(past, future))

    def shown(values: np.ndarray, place: int) -> np.ndarray:
        # As a whole window: what a source keeps of a window, it keeps of whole ones.
        whole = np.concatenate((past[place], values[place]))
        return np.asarray(dataset.codec.show(torch.from_numpy(whole)[None].float())).reshape(len(whole), -1)[-horizon:, 0]

    n = min(SHOWN, len(x))
    title = f"forecasts of {dataset.source}, {part} part: {' and '.join(f'{share:.0%}' for share in SHARES)} intervals"
    figure, axes = figures.canvas(title, 10, 1 + 1.6 * n, nrows=n, ncols=len(columns), sharex=True, sharey=True, squeeze=False, run=run)
    real = np.asarray(dataset.codec.show(x[:n])).reshape(n, x.shape[1], -1)[..., 0]
    first, last = max(0, x.shape[1] - (1 + BACK) * horizon), x.shape[1] - horizon
    ahead = np.arange(last, x.shape[1])
    for column, (name, (middle, intervals, score)) in enumerate(columns.items()):
        low, high = intervals[0]
        coverage = float(((low <= future) & (future <= high)).mean())
        axes[0, column].set_title(f"{name}: CRPS {score.mean():.3g}, {coverage:.0%} inside", fontsize=9, loc="left")
        for place in range(n):
            one = axes[place, column]
            for share, (low, high) in zip(SHARES, intervals, strict=True):
                one.fill_between(
                    ahead, shown(low, place), shown(high, place), color=figures.GENERATED, alpha=0.2, linewidth=0, label=f"{share:.0%}"
                )
            one.plot(ahead, shown(middle, place), color=figures.GENERATED, linewidth=1.2, label="forecast")
            one.plot(np.arange(first, x.shape[1]), real[place, first:], color="black", linewidth=0.9, label="what came")
            one.axvline(last - 0.5, color=figures.REAL, linewidth=0.8, linestyle="--")
    # The naive forecast's intervals may be so wide that nothing else could be seen.
    axes[0, 0].set_ylim(real.min() - ROOM * np.ptp(real), real.max() + ROOM * np.ptp(real))
    figure.supxlabel("step of the window", fontsize=9)
    # Beside the data: wherever it lay on them, it would hide a forecast.
    figure.legend(*axes[0, -1].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right upper")
    return figure
