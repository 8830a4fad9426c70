"""The same samples under a stronger and stronger truncation: fewer rarities, and less variety."""

import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Model, Samples
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs, kinds, wants = (Samples,), ("images",), "a model that can truncate its noise"

SHOWN = 10
#: Bounds of the noise, where a model does not name its own as `truncations`: None and 3 are nearly one; below 1 a generator has
#: hardly been.
VALUES = (None, 2.0, 1.5, 1.0, 0.75, 0.5)


def fits(model: Model) -> bool:
    """Whether the model truncates."""
    return "truncation" in examples.knobs_of(model)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row for each truncation, from equal seeds."""
    values = getattr(model, "truncations", VALUES)
    rows = [examples.draw(model, SHOWN, seed=seed, truncation=value) for value in values]
    names = ["none" if value is None else f"{value:g}" for value in values]
    return figures.picture(grid(torch.cat(rows), SHOWN, gap=figures.GAP), "samples by truncation", run, rows=names)
