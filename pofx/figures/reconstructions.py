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
    """The first held-out examples, with the error of the results that are shown."""
    part, held = examples.held_out(dataset)
    shown = {"images": COLUMNS * BLOCKS, "vectors": POINTS, "sequences": SEQUENCES, "tokens": TEXTS}[model.spec.kind]
    batch = examples.first(held, shown, model.window)
    result = examples.reconstruct(model, batch)
    if model.spec.kind == "tokens":
        lines = [[line(str(text)) for text in dataset.codec.show(x)] for x in (batch.x, result)]
        wrong = float((result != batch.x).float().mean())
        title = f"{part} texts, and what came back of each: {wrong:.1%} of the tokens are wrong"
        return page([f"{before}\n{after}" for before, after in zip(*lines, strict=True)], title, run)
    error = float((result - batch.x).square().mean())
    of = "pixels in [0, 1]" if model.spec.kind == "images" else "standardised"
    what = f"{part} sequences, first feature" if model.spec.kind == "sequences" else f"reconstructions of {len(result)} {part} examples"
    return pairs(dataset, batch.x, result, f"{what}: mean squared error {error:.4g} ({of})", run=run)


def pairs(dataset: Dataset, x: torch.Tensor, result: torch.Tensor, title: str, notes: Sequence[str] = (), run: Run | None = None) -> Figure:
    """Examples of `dataset`, no texts, and what became of each.

    Arguments:
        notes: a few characters to write into the corner of each result (images).
        run: that the title names.
    """
    if dataset.spec.kind == "images":
        columns = min(COLUMNS, len(x))
        blocked = -(-len(x) // columns)
        image = grid(blocks((x, result), columns), columns)
        figure = figures.picture(image, title, run, rows=("input", "result") * blocked)
        height, width = (image.shape[0] + 1) / (2 * blocked), (image.shape[1] + 1) / columns
        for i, note in enumerate(notes):
            place = i % columns * width + 2, (2 * (i // columns) + 2) * height - 4
            box = {"facecolor": "black", "alpha": 0.7, "pad": 0.6, "linewidth": 0}
            figure.axes[0].text(*place, note, color="white", fontsize=5.5, ha="left", va="bottom", bbox=box)
        return figure
    if dataset.spec.kind == "vectors":
        return _points(dataset, x, result, title, run)
    figure, axes = figures.canvas(title, 8, 1.6 * len(x), nrows=len(x), sharex=True, squeeze=False, run=run)
    for one, before, after in zip(axes[:, 0], x, result, strict=True):
        one.plot(before[..., 0], color=figures.REAL, linewidth=2, label="input")
        one.plot(after[..., 0], color=figures.GENERATED, linewidth=1, label="result")
    axes[0, 0].legend(frameon=False, loc="upper right")
    axes[-1, 0].set_xlabel("time")
    return figure


def _points(dataset: Dataset, x: torch.Tensor, result: torch.Tensor, title: str, run: Run | None) -> Figure:
    """Each example tied to its result by a line."""
    before, after = (figures.rows(dataset, value) for value in (x, result))
    plane = figures.Plane(before)
    figure, axes = figures.canvas(title, run=run)
    start, stop = plane(before), plane(after)
    axes.add_collection(LineCollection(list(np.stack((start, stop), 1)), colors="0.8", linewidths=0.8))
    for place, colour, name in ((start, figures.REAL, "input"), (stop, figures.GENERATED, "result")):
        axes.scatter(place[:, 0], place[:, 1], s=8, c=colour, linewidths=0, label=name)
    plane.label(axes)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(frameon=False, markerscale=2, loc="upper right")
    return figure
