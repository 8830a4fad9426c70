"""The importance-weighted bound on log p(x), for any model that infers codes from standard normal noise."""

import hashlib
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pofx import core

BLOCK = 64
"""Importance samples that are drawn and weighed together; their noise does not depend on how many more follow."""
ELEMENTS = 2**24
"""Numbers of one feature map held in memory at once."""


def bound(
    x: Float[Tensor, "batch ..."],
    latent: int,
    samples: int,
    log_weight: Callable[[slice, Float[Tensor, "rows k latent"]], Float[Tensor, "rows k"]],
    *,
    numbers: int,
) -> Float[Tensor, " batch"]:
    """log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x), in nats per example: it lies below log p(x) in expectation, and
    rises to it with K.

    The noise of an example is a function of the example alone, so its number does not depend on the company it is
    scored in.

    Arguments:
        latent: length of the noise behind one code.
        samples: K.
        log_weight: from a slice of x and the noise of k codes for each of its rows to log p(x, z) - log q(z|x).
        numbers: the largest count of numbers that it holds for one code.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
    """
    generator = torch.Generator()
    rows = max(1, ELEMENTS // (BLOCK * numbers))
    bounds = []
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        digests = [hashlib.blake2b(row.cpu().numpy().tobytes(), digest_size=8).hexdigest() for row in x[part]]
        total = x.new_full((len(digests),), -math.inf)
        for block in range(0, samples, BLOCK):
            drawn = [torch.randn(BLOCK, latent, generator=generator.manual_seed(core.mix(digest, block))) for digest in digests]
            noise = torch.stack(drawn)[:, : min(BLOCK, samples - block)].to(x.device)
            total = torch.logaddexp(total, log_weight(part, noise).logsumexp(1))
        bounds.append(total - math.log(samples))
    return torch.cat(bounds) if bounds else x.new_zeros(0)
