"""How the losses went: every number of metrics.jsonl over the moves, a panel for each player and each order of magnitude.

A small term, such as the divergence of a model whose reconstruction costs a hundred times as much, would be a flat line at
the bottom of one panel for all.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pofx import figures
from pofx.core import Capability, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.run import Run

needs: tuple[type[Capability], ...] = ()
wants = "the metrics of a training run"

#: Entries that say when a line was written.
CLOCK = ("step", "examples", "seconds")
WIDTH, HEIGHT = 5.2, 3.2
#: Terms share a panel while each is within this factor of the next larger one.
FACTOR = 10
#: The weighted sum of the terms of a player, which often lies on its largest one.
TOTAL = "total"
#: Signals of the monitor, which the figure health shows.
SIGNALS = "health"


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The curves of `run`, raw in pale and averaged in full colour. Raises `UsageError` without a run or without lines."""
    lines = [] if run is None else run.metrics()
    if run is None or not lines:
        raise UsageError("the figure curves needs the metrics.jsonl of a training run, and there is none with lines: train first")
    panels = [(name, terms) for name, every in series(lines).items() if name != SIGNALS for terms in grouped(every)]
    if not panels:
        raise UsageError(f"{run.path / 'metrics.jsonl'} holds no losses: train for longer")
    columns = min(2, len(panels))
    count = -(-len(panels) // columns)
    title = f"losses and scores on {run.info['data']['source']}"
    figure, axes = figures.canvas(title, WIDTH * columns, HEIGHT * count + 0.4, run=run, nrows=count, ncols=columns, squeeze=False)
    for one in axes.flat[len(panels) :]:
        one.set_axis_off()
    for one, (name, terms) in zip(axes.flat, panels, strict=False):
        _panel(one, name, terms)
    return figure


def series(lines: list[dict[str, Any]]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Panel -> term -> (steps, finite values), from lines whose keys are "panel/term"."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in lines:
        for key, value in line.items():
            if key in CLOCK or isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                continue
            panel, _, term = key.rpartition("/")
            found.setdefault(panel or "run", {}).setdefault(term, []).append((line["step"], value))
    return {
        panel: {term: (np.array([s for s, _ in points]), np.array([v for _, v in points], dtype=float)) for term, points in terms.items()}
        for panel, terms in found.items()
    }


def grouped(terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The terms in groups of like size, which is the median of their absolute values; the group of the largest first."""
    size = {term: float(np.median(np.abs(values))) for term, (_, values) in terms.items()}
    groups: list[list[str]] = []
    for term in sorted(terms, key=lambda term: -size[term]):
        if groups and size[groups[-1][-1]] <= FACTOR * size[term]:
            groups[-1].append(term)
        else:
            groups.append([term])
    return [{term: terms[term] for term in terms if term in group} for group in groups]


def _panel(axes: Any, name: str, terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for i, (term, (steps, values)) in enumerate(terms.items()):
        # On top of the largest term, which shows between the dashes.
        colour, style = (figures.colour(7), (0, (2, 4))) if term == TOTAL else (figures.colour(i), "-")
        smooth = averaged(values)
        if term != TOTAL or len(terms) == 1:
            pale = 0.25 if len(values) > 2 else 1
            axes.plot(steps, values, color=colour, alpha=pale, linewidth=1, marker="." if len(values) < 20 else None)
        axes.plot(steps, smooth, color=colour, linewidth=1.6, linestyle=style, label=f"{term}  {smooth[-1]:.4g}")
    every = np.concatenate([values for _, values in terms.values()])
    low, high = np.quantile(every, [0, 0.98]) if len(every) > 20 else (every.min(), every.max())
    if high > low:
        # The first, untrained losses do not flatten the rest.
        axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
    axes.set_title(name, fontsize=10, loc="left")
    axes.set_xlabel("moves")
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def averaged(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a fortieth of the values, shorter at the ends."""
    half = len(values) // 80
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    # As far to the left as to the right, so that a trend is not shifted at the ends.
    reach = np.minimum(half, np.minimum(place, len(values) - 1 - place))
    return (total[place + reach + 1] - total[place - reach]) / (2 * reach + 1)
