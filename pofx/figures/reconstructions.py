"""Held-out examples and what the model makes of them: inputs above, results below."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Decodes, Encodes, Model
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.data.text import line
from pofx.figures.samples import page
from pofx.run import Run

needs = (Encodes, Decodes)

COLUMNS, BLOCKS, POINTS, SEQUENCES, TEXTS = 10, 3, 500, 4, 8


def blocks(parts: Sequence[torch.Tensor], columns: int = COLUMNS) -> torch.Tensor:
    """Rows of `columns` images of the first part, each with the rows of the same ones of the other parts below; the last
    may be shorter, filled with mid-grey."""
    n, *shape = parts[0].shape
    columns = min(columns, n)
    filling = parts[0].new_full((-n % columns, *shape), 0.5)
    return torch.stack([torch.cat((part, filling)).unflatten(0, (-1, columns)) for part in parts], 1).flatten(0, 2)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The first held-out examples."""
    part, held = examples.held_out(dataset)
    if model.spec.kind == "images":
        batch = examples.first(held, COLUMNS * BLOCKS)
        columns = min(COLUMNS, len(batch.x))
        names = ("input", "result") * -(-len(batch.x) // columns)
        return figures.picture(grid(blocks((batch.x, examples.reconstruct(model, batch))), columns), f"{part} examples", rows=names)
    if model.spec.kind == "vectors":
        return _points(model, dataset, part, examples.first(held, POINTS))
    if model.spec.kind == "sequences":
        batch = examples.first(held, SEQUENCES)
        result = examples.reconstruct(model, batch)
        figure, axes = figures.canvas(
            f"{part} sequences, first feature", 8, 1.6 * len(batch.x), nrows=len(batch.x), sharex=True, squeeze=False
        )
        for one, x, y in zip(axes[:, 0], batch.x, result, strict=True):
            one.plot(x[..., 0], color=figures.REAL, linewidth=2, label="input")
            one.plot(y[..., 0], color=figures.GENERATED, linewidth=1, label="result")
        axes[0, 0].legend(frameon=False, loc="upper right")
        axes[-1, 0].set_xlabel("time")
        return figure
    batch = examples.first(held, TEXTS, model.window)
    lines = [[line(str(text)) for text in dataset.codec.show(x)] for x in (batch.x, examples.reconstruct(model, batch))]
    return page([f"{before}\n{after}" for before, after in zip(*lines, strict=True)], f"{part} texts, and what came back of each")


def _points(model: Model, dataset: Dataset, part: str, batch: examples.Batch) -> Figure:
    """Each example tied to its result by a line."""
    x, result = (figures.rows(dataset, value) for value in (batch.x, examples.reconstruct(model, batch)))
    plane = figures.Plane(x)
    figure, axes = figures.canvas(f"reconstructions of {part} examples")
    start, stop = plane(x), plane(result)
    axes.add_collection(LineCollection(list(np.stack((start, stop), 1)), colors="0.8", linewidths=0.8))
    for place, colour, name in ((start, figures.REAL, "input"), (stop, figures.GENERATED, "result")):
        axes.scatter(place[:, 0], place[:, 1], s=8, c=colour, linewidths=0, label=name)
    plane.label(axes)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(frameon=False, markerscale=2, loc="upper right")
    return figure
