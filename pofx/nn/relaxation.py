"""Discrete columns that gradients can pass: what a generator shows to a discriminator while it learns."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pofx.core import DataSpec

TEMPERATURE = 0.2
RAIL = 7.0
"""Logit of a pixel beyond which a generator is not pushed further: 1 / (1 + exp(-7)) is white to within a quarter of a level of 8 bits."""


class _Rails(torch.autograd.Function):
    """Numbers held within +- `RAIL`; beyond it only gradients that lead back in pass.

    Optimizers that divide by the size of a gradient make whole steps of vanishing ones: logits of pixels that were black or white
    grew into the hundreds, where no gradient is left and all samples are the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-RAIL, RAIL)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # A step goes against the gradient.
        outward = ((x > RAIL) & (gradient < 0)) | ((x < -RAIL) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0)


def squashed(output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Pixels in [0, 1] of logits, differentiable twice, from which a generator can always come back."""
    return _Rails.apply(output).sigmoid()


def relaxed(spec: DataSpec, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """x of a network's unbounded output, differentiable: images squashed into [0, 1], vectors as they are.

    In tables categories are draws from a Gumbel-softmax and missing indicators from its binary form, both at
    temperature 0.2 and by the global generator; an empty number moves to its mean, 0.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2016), https://arxiv.org/abs/1611.01144
        Modeling Tabular Data using Conditional GAN (Xu et al., 2019), https://arxiv.org/abs/1907.00503
    """
    if spec.kind == "images":
        return squashed(output)
    if not spec.columns:
        return output
    parts, empty = [], {}
    for column in spec.columns:
        if column.kind == "missing":
            u = torch.rand_like(output[:, column.start : column.stop]).clamp(1e-6, 1 - 1e-6)
            empty[column.name] = ((output[:, column.start : column.stop] + u.logit()) / TEMPERATURE).sigmoid()
    for column in spec.columns:
        part = output[:, column.start : column.stop]
        match column.kind:
            case "category":
                parts.append(F.gumbel_softmax(part, TEMPERATURE))
            case "missing":
                parts.append(empty[column.name])
            case _:
                parts.append(part * (1 - empty[column.name]) if column.name in empty else part)
    return torch.cat(parts, 1)
