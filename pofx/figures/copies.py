"""Suspicious samples: those that look most like copies, each above its nearest training example; below, held-out data that do."""

import numpy as np
import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Model, Samples, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.metrics.copying import closeness
from pofx.metrics.nearest import neighbours
from pofx.run import Run
from pofx.subject import Subject

needs, kinds, wants = (Samples,), ("images",), "data with a held-out part"

SHOWN = 10


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The samples that are nearest to one training example in comparison with the next one, of as many as an evaluation draws.

    Raises `UsageError` for data without a held-out part to compare with.
    """
    part, held = examples.held_out(dataset)
    if part == "train":
        raise UsageError(f"the figure copies needs {wants}, and {dataset.source} has none")
    with examples.asking(model):
        subject = Subject(model, dataset, dataset, held, part)
        train = subject.seen("training", subject.components)
        rows, names = [], []
        for name, which, x in (("sample", "drawn", subject.drawn), (part, "real", subject.real.x)):
            distance, nearest = neighbours(subject.seen(which, subject.components), train, 2)
            order = np.argsort(closeness(distance), kind="stable")[:SHOWN]
            rows += [x[order], subject.training.x[nearest[order, 0]]]
            names += [name, "its nearest"]
    title = "most like copies: samples and held-out examples above their nearest training examples"
    return figures.picture(grid(torch.cat(rows), min(SHOWN, len(rows[0]))), title, run, rows=tuple(names))
