"""Styles of two samples mixed: what is coarse of the one at the left, what is fine of the one above."""

from typing import Any, cast

import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Decodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs = (Decodes,)

COARSE, FINE = 5, 8


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row a coarse code, a column a fine one; the codes themselves stand at the left and above. Raises `UsageError` for a model
    whose codes have no coarse and fine part."""
    if not hasattr(model, "mix"):
        raise UsageError(f"the figure mixing needs a model whose codes can be mixed, layer by layer, which {type(model).__name__} cannot")
    figures.images_only(model, "mixing")
    codes = examples.prior_codes(model, COARSE + FINE, seed).to(model.device)
    coarse, fine = codes[:COARSE], codes[COARSE:]
    with examples.asking(model):
        mixed = cast(Any, model).mix(coarse.repeat_interleave(FINE, 0), fine.repeat(COARSE, 1)).unflatten(0, (COARSE, FINE)).cpu()
    left, above = examples.decode(model, coarse.cpu()), examples.decode(model, fine.cpu())
    blank = torch.ones_like(left[:1])
    rows = torch.cat((torch.cat((blank, above))[None], torch.cat((left[:, None], mixed), 1)))
    image = grid(rows.flatten(0, 1), FINE + 1, gap=figures.GAP)
    return figures.picture(image, "coarse layers as at the left, fine layers as above", rows=("fine", *["coarse"] * COARSE))
