"""The law of codes that have none: a Gaussian with the running mean and covariance of the codes that training sees."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from pofx.core import Noise
from pofx.nn.ranks import summed

FULL = 256
"""Codes up to this length have a full covariance, longer ones a diagonal."""


class RunningGaussian(nn.Module):
    """N(mean, covariance) of vectors, followed batch by batch: a plain mean over the first 100, then decaying by 0.99.

    Arguments:
        features: length of a vector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("covariance", torch.eye(features) if features <= FULL else torch.ones(features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, z: Float[Tensor, "batch features"]) -> None:
        """Mixes a batch's moments (each part's, where a batch is accumulated) into the running ones: exactly the moments of the
        mixture of both."""
        self.count += 1
        share = max(1 / int(self.count), 0.01)
        count = summed(z.new_tensor(float(len(z))))
        mean = summed(z.sum(0)) / count
        centred, shift = z - mean, mean - self.mean
        full = self.covariance.ndim == 2
        within = summed(centred.T @ centred if full else centred.square().sum(0)) / count
        between = torch.outer(shift, shift) if full else shift.square()
        self.covariance.lerp_(within, share).add_(between, alpha=share * (1 - share))
        self.mean.lerp_(mean, share)

    def distribution(self) -> MultivariateNormal | Independent:
        """The Gaussian; its event is one vector."""
        if self.covariance.ndim == 1:
            return Independent(Normal(self.mean, self.covariance.clamp(min=1e-12).sqrt()), 1)
        # Dead units have no variance, and rounding may leave less than none.
        jitter = 1e-4 * self.covariance.diagonal().mean().clamp(min=1e-6)
        return MultivariateNormal(self.mean, self.covariance + jitter * torch.eye(len(self.mean), device=self.mean.device))

    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n features"]:
        """A vector for each row of `noise`; `temperature` multiplies the standard deviation."""
        gaussian, spread = self.distribution(), noise.normal(len(self.mean))
        spread = spread @ gaussian.scale_tril.T if isinstance(gaussian, MultivariateNormal) else spread * gaussian.stddev
        return self.mean + temperature * spread
