"""The likelihood of latent-variable models: importance-weighted bounds, and exact integrals over short codes."""

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pofx import core
from pofx.core import UsageError
from pofx.nn.gaussian import Gaussian

BLOCK = 64
"""Importance samples that are drawn and weighed together; their noise does not depend on how many more follow."""
ELEMENTS = 2**22
"""Decoded numbers held in memory at once while importance samples are weighed; more are no faster, since caches are small."""
REACH, SIDE = 5.0, 512
"""A grid of codes goes from -REACH to REACH standard deviations of the prior N(0, I) in SIDE steps."""
WHOLE, SMOOTH = 1e-3, 1e-2
"""How far from 1 the sum of a prior over the grid may be, and over every other point in each dimension."""


def importance_bound(
    x: Shaped[Tensor, "batch ..."],
    weigh: Callable[[slice], Callable[[Float[Tensor, "rows k noise"]], Float[Tensor, "rows k"]]],
    *,
    noise: int,
    samples: int,
    numbers: int | None = None,
) -> Float[Tensor, " batch"]:
    """log 1/K sum_k w_k for each example, with log w_k = log p(x, z_k) - log q(z_k|x) and z_k ~ q(z|x).

    It lies below log p(x) in expectation and rises to it with K. The noise of an example is a function of the example alone,
    so that its number does not depend on the company it is scored in.

    Arguments:
        weigh: from rows of x to a function from standard normal noise to the logarithms of their weights.
        noise: length of the noise of one code.
        samples: K. Raises `UsageError` where it is less than 1.
        numbers: the most that are held for one code; by default those of an example.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
    """
    if samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}")
    size = max(1, ELEMENTS // (BLOCK * (numbers or math.prod(x.shape[1:]))))
    generator = torch.Generator()
    bounds = []
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        log_weight = weigh(rows)
        digests = [hashlib.blake2b(row.cpu().numpy().tobytes(), digest_size=8).hexdigest() for row in x[rows]]
        total = torch.full((len(digests),), -math.inf, device=x.device)
        for block in range(0, samples, BLOCK):
            drawn = [torch.randn(BLOCK, noise, generator=generator.manual_seed(core.mix(digest, block))) for digest in digests]
            eps = torch.stack(drawn)[:, : samples - block].to(x.device)
            total = torch.logaddexp(total, log_weight(eps).logsumexp(1))
        bounds.append(total - math.log(samples))
    return torch.cat(bounds) if bounds else x.new_zeros(0)


def of_gaussians(
    posterior: Callable[[slice], Gaussian],
    log_prior: Callable[[Float[Tensor, "rows k latent"]], Float[Tensor, "rows k"]],
    nll: Callable[[Float[Tensor, "rows k latent"], slice], Float[Tensor, "rows k"]],
) -> Callable[[slice], Callable[[Float[Tensor, "rows k latent"]], Float[Tensor, "rows k"]]]:
    """`weigh` of a model with one Gaussian posterior: log p(x|z) + log p(z) - log q(z|x).

    Arguments:
        posterior: of some rows of x. log_prior: log p(z). nll: -log p(x|z) of codes for these rows.
    """

    def weigh(rows: slice) -> Callable[[Tensor], Tensor]:
        q = posterior(rows)

        def log_weight(eps: Tensor) -> Tensor:
            z, log_q = q.draw(eps)
            return log_prior(z) - log_q - nll(z, rows)

        return log_weight

    return weigh


class Grid(NamedTuple):
    """z: (points, latent) codes of an even grid; log_volume: of the cell around each."""

    z: Tensor
    log_volume: float


def grid(latent: int) -> Grid:
    """An even grid over `latent` dimensions from -REACH to REACH in SIDE steps.

    The sum of a Gaussian over it is its integral to 1e-8 where its standard deviation is at least one step, since the
    trapezoidal rule converges exponentially, and to 2e-4 at two thirds of a step.

    References:
        The Exponentially Convergent Trapezoidal Rule (Trefethen and Weideman, 2014), https://doi.org/10.1137/130932132
    """
    line = torch.linspace(-REACH, REACH, SIDE + 1)
    return Grid(torch.cartesian_prod(*[line] * latent).view(-1, latent), latent * math.log(2 * REACH / SIDE))


def covered(log_prior: Float[Tensor, " points"], latent: int) -> bool:
    """Whether a prior lies within `grid` and is smooth between its points: its sum is 1, and still nearly so over half of the points in
    each dimension."""
    density = log_prior.to(torch.float64).exp().view([SIDE + 1] * latent)
    volume = (2 * REACH / SIDE) ** latent
    half = density[(slice(None, None, 2),) * latent]
    return abs(volume * float(density.sum()) - 1) < WHOLE and abs(2**latent * volume * float(half.sum()) - 1) < SMOOTH


def resolved(q: Gaussian) -> bool:
    """Whether `grid` covers every posterior and is fine enough for it."""
    deviation = q.log_diagonal.exp()
    inside = q.mu.abs() + 3 * deviation <= REACH
    return bool(inside.all()) and bool((deviation >= 2 / 3 * (2 * REACH / SIDE)).all())
