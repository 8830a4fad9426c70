"""How the losses went: every number of metrics.jsonl over the moves, a panel for each player and each order of magnitude.

A small term, such as the divergence of a model whose reconstruction costs a hundred times as much, would be a flat line at
the bottom of one panel for all.
"""

from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pofx import figures
from pofx.core import Capability, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.run import Run

needs: tuple[type[Capability], ...] = ()
wants = "the metrics of a training run"

#: Entries that say when a line was written.
CLOCK = ("step", "examples", "seconds")
WIDTH, HEIGHT = 6.0, 3.2
#: Terms share a panel while each is within this factor of the next larger one.
FACTOR = 10
#: The weighted sum of the terms of a player, which often lies on its largest one.
TOTAL = "total"
#: Signals of the monitor, which the figure health shows.
SIGNALS = "health"
#: The panel of the scores of the averaged weights on held-out examples.
VALIDATION = "validation"
#: Terms that are counts, which share no axis with quantities.
COUNTS = ("active_units",)
#: What is known of the units of terms, "panel/term". A loss may be in any unit, but likelihoods and divergences are in nats.
UNITS = {
    "*/active_units": "units of the code",
    "*/kl": "nats",
    "*/kl_*": "nats",
    "*/nll": "nats",
    "codes/layer_*": "nats",
    "*/bits_per_dimension": "bits per dimension",
    "*/accuracy": "share that is right",
}
#: The share of the moves whose values may be cut, and how many times as wide the axis would have to be for that.
EARLY, WIDER = 0.1, 2.0
#: Characters of the title of a panel.
TITLE = 60


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
    names = [name for name, _ in panels]
    for one, (name, terms) in zip(axes.flat, panels, strict=False):
        _panel(one, terms)
        scored = model.validation if name == VALIDATION else None
        one.set_ylabel(unit([scored] if scored else [f"{name}/{term}" for term in terms if term != TOTAL]))
        if scored:
            name += f": {scored} of held-out examples"
        elif names.count(name) > 1:
            name += f": {', '.join(terms)}"
        one.set_title(figures.shorten(name, TITLE), fontsize=10, loc="left")
    return figure


def unit(terms: list[str]) -> str:
    """The unit of terms, "panel/term"; nothing where it is not known or not one."""
    found = {next((unit for pattern, unit in UNITS.items() if fnmatch(term, pattern)), "") for term in terms}
    return found.pop() if len(found) == 1 else ""


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
    """The terms in groups of like size, which is the median of their absolute values; the group of the largest first, counts last."""
    size = {term: float(np.median(np.abs(values))) for term, (_, values) in terms.items()}
    groups: list[list[str]] = []
    for term in sorted(terms, key=lambda term: (term in COUNTS, -size[term])):
        alike = groups and (groups[-1][-1] in COUNTS) == (term in COUNTS)
        if alike and size[groups[-1][-1]] <= FACTOR * size[term]:
            groups[-1].append(term)
        else:
            groups.append([term])
    return [{term: terms[term] for term in terms if term in group} for group in groups]


class Limits(NamedTuple):
    """Of the axis of values: from low to high; cut: the first move with values beyond, the one after the last such move, and the
    outermost of these values."""

    low: float
    high: float
    cut: tuple[int, int, float] | None


def limits(steps: np.ndarray, values: np.ndarray) -> Limits:
    """Limits within which all values lie, but for those of the first tenth of the moves where these, of a network that has learned
    nothing yet, would flatten the rest."""
    late = values[steps > steps.min() + EARLY * np.ptp(steps)]
    shown = late if len(late) and 0 < WIDER * np.ptp(late) < np.ptp(values) else values
    low, high = shown.min() - 0.05 * np.ptp(shown), shown.max() + 0.1 * np.ptp(shown)
    beyond = (values < low) | (values > high)
    if not beyond.any():
        return Limits(low, high, None)
    outermost = values[np.maximum(low - values, values - high).argmax()]
    last = steps[beyond].max()
    return Limits(low, high, (int(steps[beyond].min()), int(steps[steps > last].min(initial=steps.max())), float(outermost)))


def _panel(axes: Any, terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for i, (term, (steps, values)) in enumerate(terms.items()):
        # On top of the largest term, which shows between the dashes.
        colour, style = (figures.colour(7), (0, (2, 4))) if term == TOTAL else (figures.colour(i), "-")
        smooth = averaged(values)
        if term != TOTAL or len(terms) == 1:
            pale = 0.25 if len(values) > 2 else 1
            axes.plot(steps, values, color=colour, alpha=pale, linewidth=1, marker="." if len(values) < 20 else None)
        axes.plot(steps, smooth, color=colour, linewidth=1.6, linestyle=style, label=f"{term}  {smooth[-1]:.4g}")
    low, high, cut = limits(*(np.concatenate(parts) for parts in zip(*terms.values(), strict=True)))
    if set(terms) <= set(COUNTS):
        axes.set_ylim(0, high + 1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    elif high > low:
        axes.set_ylim(low, high)
    axes.set_xlabel("moves")
    if cut is not None:
        first, last, outermost = cut
        axes.axvspan(first, last, color=figures.REAL, alpha=0.3, linewidth=0)
        axes.set_xlabel(f"moves (grey: values are cut, which go {'up' if outermost > high else 'down'} to {outermost:.4g})")
    # Beside the curves: of many, there is no place where it hides none.
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def averaged(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a fortieth of the values, shorter at the ends."""
    half = len(values) // 80
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    # As far to the left as to the right, so that a trend is not shifted at the ends.
    reach = np.minimum(half, np.minimum(place, len(values) - 1 - place))
    return (total[place + reach + 1] - total[place - reach]) / (2 * reach + 1)
