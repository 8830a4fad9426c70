"""What the codes of a model mean: the same samples under one value of a code after the other."""

from typing import Any, cast

import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Model, Samples
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.nn.codes import Codes
from pofx.run import Run

needs, kinds, wants = (Samples,), ("images",), "a model some of whose noise has learned a meaning, as that of an infogan has"

#: Values of a code, samples of each, and codes that are shown, at most.
VALUES, EACH, SHOWN = 10, 3, 8


def fits(model: Model) -> bool:
    """Whether samples of the model can be asked for by code."""
    return Samples in model.capabilities and "code" in examples.knobs_of(model)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """Some rows for each code, whose values rise from left to right; all but that code is the same along a row."""
    codes: Codes = cast(Any, model).codes
    rows, names = [], []
    for name, count in list(zip(codes.names, codes.counts, strict=True))[:SHOWN]:
        values = [float(value) for value in range(min(count, VALUES))] if count else torch.linspace(-1, 1, VALUES).tolist()
        drawn = torch.stack([examples.draw(model, EACH, seed=seed, code={name: value}) for value in values], 1)
        # What a category of few values leaves free is blank.
        blank = torch.ones_like(drawn[:, :1]).expand(-1, VALUES - len(values), *drawn.shape[2:])
        rows.append(torch.cat((drawn, blank), 1))
        names += [f"{name}: {values[0]:g} to {values[-1]:g}"] * EACH
    image = grid(torch.cat(rows).flatten(0, 1), VALUES, gap=figures.GAP)
    return figures.picture(image, "from left to right one code rises, and all else of a row is the same", run, rows=names)
