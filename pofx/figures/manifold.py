"""What the decoder makes of a plane through the codes, at even quantiles of the prior.

Codes of two numbers: the whole plane. Longer ones: the plane of the two principal axes of the codes of held-out
examples (of draws of the prior, where the model does not encode), through their mean.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pofx import examples, figures
from pofx.core import Decodes, Encodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs = (Decodes,)

SIDE, DRAWS, EDGE = 16, 4096, 0.02


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A grid of decoded images. Raises `UsageError` for other data."""
    if model.spec.kind != "images":
        raise UsageError(f"the figure manifold is a grid of images, and these data are {model.spec.kind}: plot samples instead")
    codes, where = _codes(model, dataset, seed)
    z = plane(codes, SIDE)
    return figures.picture(grid(examples.decode(model, z), SIDE), f"decoded {where}")


def _codes(model: Model, dataset: Dataset, seed: int) -> tuple[Tensor, str]:
    prior = examples.prior_codes(model, DRAWS, seed)
    if prior.shape[1] <= 2:
        return prior, "quantiles of the prior"
    if Encodes not in model.capabilities:
        return prior, "plane of the prior"
    part, held = examples.held_out(dataset)
    codes = examples.encode(model, examples.first(held, 1000))
    return codes, f"principal plane of {part} codes"


def plane(codes: Tensor, side: int) -> Tensor:
    """A grid of side x side codes (side squared, latent) at even quantiles of `codes` along two axes, first axis to the
    right and second one upwards; one number is laid out along the rows."""
    centre = codes.mean(0)
    if codes.shape[1] <= 2:
        axes = torch.eye(codes.shape[1])
        centre = torch.zeros_like(centre)
    else:
        axes = torch.linalg.svd(codes - centre, full_matrices=False).Vh[:2]
    along = (codes - centre) @ axes.T
    if len(axes) == 1:
        return along.quantile(torch.linspace(EDGE, 1 - EDGE, side * side), 0)
    quantiles = torch.from_numpy(np.linspace(EDGE, 1 - EDGE, side)).to(along.dtype)
    right, up = along[:, 0].quantile(quantiles), along[:, 1].quantile(quantiles).flip(0)
    places = torch.stack((right.repeat(side), up.repeat_interleave(side)), 1)
    return centre + places @ axes
