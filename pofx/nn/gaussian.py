"""Gaussian posteriors over codes, diagonal or with a full covariance, drawn from standard normal noise."""

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Covariance = Literal["diagonal", "full"]

LIMIT = 10.0
"""An outlier must not overflow exp: a standard deviation within e^+-10 is all that there is."""


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(mu, L L^T) for each example of a batch, with L lower triangular: a Cholesky factor.

    mu: (batch, latent). log_diagonal: (batch, latent), the logarithm of L's diagonal. lower: (batch, latent, latent), L below
    its diagonal; None where L is diagonal.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        An Introduction to Variational Autoencoders (Kingma and Welling, 2019), section 2.5.1, https://arxiv.org/abs/1906.02691
    """

    mu: Tensor
    log_diagonal: Tensor
    lower: Tensor | None = None

    @staticmethod
    def outputs(latent: int, covariance: Covariance) -> int:
        """How many numbers of a network say all of it."""
        return 2 * latent + (latent * (latent - 1) // 2 if covariance == "full" else 0)

    @classmethod
    def of(cls, output: Float[Tensor, "batch outputs"], latent: int) -> "Gaussian":
        """From a network's output of `outputs` numbers: mu, log variances of the diagonal, and what is below it, row by row."""
        mu, log_var, below = output.split((latent, latent, output.shape[1] - 2 * latent), 1)
        lower = None
        if below.shape[1]:
            rows, columns = torch.tril_indices(latent, latent, -1, device=output.device)
            lower = output.new_zeros(len(output), latent, latent).index_put(
                (torch.arange(len(output), device=output.device)[:, None], rows, columns), below
            )
        return cls(mu, (0.5 * log_var).clamp(-LIMIT, LIMIT), lower)

    def draw(self, eps: Float[Tensor, "batch ... latent"]) -> tuple[Float[Tensor, "batch ... latent"], Float[Tensor, "batch ..."]]:
        """z = mu + L eps, and log q(z), of one or of several rows of noise an example."""
        each = (slice(None), *[None] * (eps.ndim - 2))
        z = self.mu[each] + self.log_diagonal[each].exp() * eps
        if self.lower is not None:
            z = z + torch.einsum("bij,b...j->b...i", self.lower, eps)
        log_q = -0.5 * eps.square().sum(-1) - self.log_diagonal.sum(-1)[each] - 0.5 * math.log(2 * math.pi) * eps.shape[-1]
        return z, log_q

    def kl(self) -> Float[Tensor, " batch"]:
        """KL(q || N(0, I)) = 1/2 (||mu||^2 + ||L||_F^2 - latent) - log det L, in nats."""
        kl = self.kl_per_dimension().sum(1)
        return kl if self.lower is None else kl + 0.5 * self.lower.square().sum((1, 2))

    def kl_per_dimension(self) -> Float[Tensor, "batch latent"]:
        """What each dimension adds to `kl`; of a full covariance, without what lies below the diagonal."""
        return 0.5 * (self.mu.square() + (2 * self.log_diagonal).exp() - 1) - self.log_diagonal
