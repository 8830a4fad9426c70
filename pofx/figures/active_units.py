"""Which units of the code say something about x: the variance of each unit over held-out examples, sorted, in variances of its prior."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Batch, Decodes, Encodes, Model
from pofx.data.dataset import Dataset
from pofx.metrics.codes import active_units
from pofx.nn.collapse import ACTIVE
from pofx.run import Run

needs = (Encodes,)

EXAMPLES = 1000
#: Units that are numbered below their bars.
NUMBERED = 40
#: What is drawn of a unit that never varies.
FLOOR = 1e-6


def activity(model: Model, batch: Batch) -> tuple[Float[np.ndarray, " units"], Bool[np.ndarray, " units"]]:
    """The variance of each unit's code over examples, in variances of the prior where there is one, and which are active.

    For a posterior the code is its mean, so that this is Var_x[E_q(z|x) z] > 0.01.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), section 5.2, https://arxiv.org/abs/1509.00519
    """
    codes = examples.encode(model, batch).flatten(1).double().numpy()
    prior = examples.prior_scale(model)[1].double().numpy() ** 2 if Decodes in model.capabilities else None
    variance = codes.var(0) if prior is None else codes.var(0) / np.maximum(prior, np.finfo(float).tiny)
    return variance, active_units(codes, prior)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """Bars on a logarithmic scale, with the threshold of 0.01 where there is a prior to measure by."""
    part, held = examples.held_out(dataset)
    batch = examples.some(held, EXAMPLES, window=model.window)
    variance, active = activity(model, batch)
    order = np.argsort(-variance, kind="stable")
    title = f"{active.sum():,} of {len(active):,} units of the code are active, over {len(batch.x):,} {part} examples"
    figure, axes = figures.canvas(title, max(6.0, min(11.0, 2 + 0.22 * len(order))), 4.2, run=run)
    place = np.arange(len(order))
    for kind, rows, colour in (("active", active[order], figures.colour(0)), ("says nothing about x", ~active[order], figures.REAL)):
        if rows.any():
            axes.bar(place[rows], np.maximum(variance[order], FLOOR)[rows], width=0.8, color=colour, label=f"{kind} ({rows.sum():,})")
    axes.set_yscale("log")
    axes.grid(axis="x", visible=False)
    if Decodes in model.capabilities:
        axes.axhline(ACTIVE, color=figures.GENERATED, linestyle="--", linewidth=1.2, label=f"threshold {ACTIVE}")
        axes.set_ylabel("variance over x, in prior variances")
    else:
        axes.set_ylabel("variance over x")
    axes.set_ylim(max(FLOOR, min(variance.min(), ACTIVE) / 3), 2 * max(1.0, variance.max()))
    axes.set_xlabel("unit, the most active first")
    if len(order) <= NUMBERED:
        axes.set_xticks(place, [f"z{i}" for i in order], fontsize=8, rotation=90 if len(order) > 10 else 0)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure
