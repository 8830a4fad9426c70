"""Styles of two samples mixed: what is coarse of the one at the left, what is fine of the one above."""

from typing import Any, cast

import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Decodes, Model
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs, kinds, wants = (Decodes,), ("images",), "a model whose codes can be mixed, layer by layer"

COARSE, FINE = 5, 8


def fits(model: Model) -> bool:
    """Whether the model mixes."""
    return hasattr(model, "mix")


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row a coarse code, a column a fine one; the codes themselves stand at the left and above."""
    codes = examples.prior_codes(model, COARSE + FINE, seed).to(model.device)
    coarse, fine = codes[:COARSE], codes[COARSE:]
    with examples.asking(model):
        mixed = cast(Any, model).mix(coarse.repeat_interleave(FINE, 0), fine.repeat(COARSE, 1)).unflatten(0, (COARSE, FINE)).cpu()
    left, above = examples.decode(model, coarse.cpu()), examples.decode(model, fine.cpu())
    blank = torch.ones_like(left[:1])
    rows = torch.cat((torch.cat((blank, above))[None], torch.cat((left[:, None], mixed), 1)))
    image = grid(rows.flatten(0, 1), FINE + 1, gap=figures.GAP)
    return figures.picture(image, "coarse layers as at the left, fine layers as above", run, rows=("fine", *["coarse"] * COARSE))
