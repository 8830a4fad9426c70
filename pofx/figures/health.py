"""Health of a game: what the discriminator says of real, held-out and generated examples, and how logits, gradients and samples went.

Where the histograms of training and held-out examples part, the discriminator knows its examples by heart; where that of
generated ones lies far from both, the generator loses. The curves are the signals that the monitor took while training.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Judges, Model, Samples, UsageError
from pofx.data.dataset import Dataset
from pofx.figures.curves import SIGNALS, series
from pofx.nn.labels import absent
from pofx.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

needs = (Samples, Judges)

#: Examples of each group, bins of a histogram, and the share of logits at either end that is left out of it.
SHOWN, BINS, ENDS = 1000, 40, 0.002
#: Groups, with the place of their colour and their line.
GROUPS = {"training": (0, "-"), "held-out": (1, "--"), "generated": (3, "-.")}
#: Title, label of the axis of values, whether it is logarithmic where values differ tenfold, and signals with their names and those of `GROUPS`' styles.
_DIVERSITY = {"diversity": "distance of pairs, over real ones", "coverage": "real examples covered", "duplicates": "samples with a twin"}
CURVES = (
    ("mean logits", "D(x)", False, {"real_logit": "training", "held_logit": "held-out", "fake_logit": "generated"}),
    ("gradients", "median norm", True, {"judge_gradient": "discriminator", "maker_gradient": "the other players"}),
    ("diversity of samples", "share, or ratio", False, _DIVERSITY),
)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """Histograms for the model as it is, and curves where `run` has recorded some."""
    logits = judged(model, dataset, seed)
    found = {} if run is None else series(run.metrics()).get(SIGNALS, {})
    curves = [one for one in CURVES if set(one[3]) & set(found)]
    count = 1 + len(curves)
    columns = min(2, count)
    rows = -(-count // columns)
    figure, axes = figures.canvas(
        f"health of the game on {dataset.source}", 5.2 * columns, 3.4 * rows + 0.4, nrows=rows, ncols=columns, squeeze=False, run=run
    )
    for one in axes.flat[count:]:
        one.set_axis_off()
    _histograms(axes.flat[0], logits)
    for one, (name, label, logarithmic, signals) in zip(axes.flat[1:], curves, strict=False):
        drawn = [value for signal in signals if signal in found for value in found[signal][1]]
        for i, (signal, what) in enumerate(signals.items()):
            if signal not in found:
                continue
            steps, values = found[signal]
            colour, line = GROUPS.get(what, list(GROUPS.values())[i])
            one.plot(steps, values, line, color=figures.colour(colour), linewidth=1.6, marker="." if len(values) < 3 else None, label=what)
        one.set_title(name, fontsize=10, loc="left")
        wide = logarithmic and min(drawn) > 0 and max(drawn) > 10 * min(drawn)
        one.set(xlabel="moves", ylabel=label, xlim=(0, None), yscale="log" if wide else "linear")
        one.legend(frameon=False, fontsize=8)
    return figure


def judged(model: Model, dataset: Dataset, seed: int = 0) -> dict[str, np.ndarray]:
    """Group -> finite logits of its examples. Raises `UsageError` where there is no finite one at all."""
    train = examples.some(dataset.train, SHOWN, seed=seed)
    asked = examples.conditions(model, train.label)
    groups = {"training": (train.x, asked)}
    if dataset.validation is not None or dataset.test is not None:
        held = examples.some(dataset.validation or dataset.test, SHOWN, seed=seed)  # type: ignore[arg-type]
        groups["held-out"] = (held.x, examples.conditions(model, held.label))
    if asked is not None and bool(absent(asked).any()):
        asked = None  # a missing label cannot be asked for
    groups["generated"] = (examples.draw(model, len(train.x), seed=seed, label=asked), asked)
    found = {name: _logits(model, x, label) for name, (x, label) in groups.items()}
    if not any(len(values) for values in found.values()):
        raise UsageError("the figure health has nothing to show: no logit of the model is finite")
    return found


def _logits(model: Model, x: "Tensor", label: "Tensor | None") -> np.ndarray:
    with examples.asking(model):
        parts = zip(x.split(examples.PART), [None] * len(x) if label is None else label.split(examples.PART), strict=False)
        every = [
            cast(Judges, model).judge(part.to(model.device), label=None if y is None else y.to(model.device)).cpu().numpy()
            for part, y in parts
        ]
    logits = np.concatenate(every).astype(np.float64)
    return logits[np.isfinite(logits)]


def _histograms(axes: "Axes", logits: dict[str, np.ndarray]) -> None:
    """Outlines, since three filled ones hide each other."""
    every = np.concatenate(list(logits.values()))
    low, high = np.quantile(every, [ENDS, 1 - ENDS])
    edges: Sequence[float] = np.linspace(low, high if high > low else low + 1e-6, BINS + 1).tolist()
    for name, values in logits.items():
        colour, line = GROUPS[name]
        weights = np.full(len(values), 1 / max(1, len(values)))
        shown = f"{name}, mean {values.mean():.3g}" if len(values) else f"{name}: not finite"
        axes.hist(values, edges, weights=weights, histtype="step", color=figures.colour(colour), linestyle=line, linewidth=1.6, label=shown)
    axes.set_title("what the discriminator says, by the averaged weights", fontsize=10, loc="left")
    axes.set(xlabel="D(x), the log-odds of real against generated", ylabel="share of examples")
    axes.legend(frameon=False, fontsize=8)
