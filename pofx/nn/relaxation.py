"""Discrete columns that gradients can pass: what a generator shows to a discriminator while it learns."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pofx.core import DataSpec

TEMPERATURE = 0.2


def relaxed(spec: DataSpec, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """x of a network's unbounded output, differentiable: images squashed into [0, 1], vectors as they are.

    In tables categories are draws from a Gumbel-softmax and missing indicators from its binary form, both at
    temperature 0.2 and by the global generator; an empty number moves to its mean, 0.

    References:
        Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2016), https://arxiv.org/abs/1611.01144
        Modeling Tabular Data using Conditional GAN (Xu et al., 2019), https://arxiv.org/abs/1907.00503
    """
    if spec.kind == "images":
        return output.sigmoid()
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
