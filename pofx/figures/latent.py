"""Codes of held-out examples in the plane, coloured by class; larger codes by their two principal axes."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Classes, Encodes, Model
from pofx.data.dataset import Dataset
from pofx.run import Run

needs = (Encodes,)

POINTS, CLASSES = 2000, 20


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The first held-out examples; classes beyond the first 20 share grey with the examples without a label."""
    part, held = examples.held_out(dataset)
    batch = examples.first(held, POINTS, model.window)
    codes = examples.encode(model, batch).flatten(1).numpy()
    plane = figures.Plane(codes, ("z0", "z1"))
    place = plane(codes)
    figure, axes = figures.canvas(f"codes of {len(codes):,} {part} examples ({codes.shape[1]} dimensions)", 7, 6)
    label, meaning = batch.label, dataset.spec.label
    names = meaning.names[:CLASSES] if isinstance(meaning, Classes) and label is not None else ()
    classes = label.cpu().numpy() if names and label is not None else np.full(len(codes), -1)
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    groups = [(classes == i, colours(i), name) for i, name in enumerate(names)]
    groups.insert(0, ((classes < 0) | (classes >= len(names)), figures.REAL, "other" if names else ""))
    for rows, colour, name in groups:
        if not rows.any():
            continue
        if codes.shape[1] == 1:
            axes.hist(codes[rows, 0], bins=np.histogram_bin_edges(codes[:, 0], 40), color=colour, alpha=0.6, label=name)
        else:
            axes.scatter(
                place[rows, 0], place[rows, 1], s=min(30, max(8, 8000 / len(codes))), color=colour, alpha=0.75, linewidths=0, label=name
            )
    if codes.shape[1] == 1:
        axes.set(xlabel="z0", ylabel="examples")
    else:
        plane.label(axes)
    if names:
        axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure
