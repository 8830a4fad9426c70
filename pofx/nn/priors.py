"""Priors over codes: N(0, I), and what is learned with the model, mixtures of Gaussians or of posteriors, a normalizing flow."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from pofx import losses
from pofx.core import CodePrior, Noise, UsageError
from pofx.nn.gaussian import Gaussian

FAR = 60.0
"""Nats behind the likeliest component from which on another one counts for no less: together they add some 1e-23 to the density."""
SPREAD = 0.7
"""Standard deviation at first of each component of a mixture, where all of them together have 1."""


class Prior(nn.Module, ABC):
    """p(z)."""

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """log p(z) in nats, with gradients."""

    @abstractmethod
    def draw(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """A code for each row of noise, whose spread is multiplied by `temperature`."""

    @abstractmethod
    def distribution(self) -> Distribution:
        """The same as a distribution, whose event is one code."""


class StandardNormal(Prior):
    """N(0, I) of `latent` dimensions."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent), persistent=False)

    def log_prob(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """In closed form."""
        return losses.normal_log_prob(z, 0.0, 0.0)

    def draw(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """Standard normal noise."""
        return temperature * noise.normal(len(self.zeros))

    def truncated(
        self, noise: Noise, threshold: float | None, *, temperature: float = 1.0, fitted: CodePrior | None = None
    ) -> Float[Tensor, "n latent"]:
        """A code for each row of noise whose numbers come from N(0, 1) within +-`threshold`: z = Phi^-1(1/2 + (Phi(e) - 1/2) P) with e
        standard normal and P the probability of the interval, times `temperature`. Of equal noise, so that thresholds can be compared.

        Arguments:
            threshold: None: codes are drawn from all of the prior.
            fitted: a prior that was fitted later, which takes this one's place.
        Raises `UsageError` for a threshold that is not above 0, and for one of a fitted prior.

        References:
            Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock et al., 2019), section 3.1 (the truncation
            trick), https://arxiv.org/abs/1809.11096
        """
        if threshold is None:
            return (fitted or self).draw(noise, temperature=temperature)
        if fitted is not None:
            raise UsageError("truncation is of the model's own prior, and codes are drawn from another one: leave one of them out")
        if not threshold > 0:
            raise UsageError(f"truncation must be above 0, not {threshold:g}: it is where the noise is cut off, in standard deviations")
        inside = math.erf(threshold / math.sqrt(2))
        # In float64: next to 0 and 1 the inverse is steep.
        u = 0.5 + (torch.special.ndtr(noise.normal(len(self.zeros)).to(torch.float64)) - 0.5) * inside
        z = torch.special.ndtri(u).clamp(-threshold, threshold)
        return temperature * z.to(torch.float32)

    def distribution(self) -> Independent:
        """N(0, I)."""
        return Independent(Normal(self.zeros, torch.ones_like(self.zeros)), 1)


class Components(NamedTuple):
    """Gaussians with diagonal covariances: mu and log sigma, each (components, latent)."""

    mu: Float[Tensor, "components latent"]
    log_sigma: Float[Tensor, "components latent"]


class _Mixture(Prior):
    """p(z) = 1/K sum_k N(z; mu_k, sigma_k^2)."""

    @abstractmethod
    def components(self) -> Components:
        """The K Gaussians, with gradients."""

    def log_prob(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """log of the mean of the K densities."""
        return self._mixed(z, self.components())

    @staticmethod
    def _mixed(z: Float[Tensor, "... latent"], components: Components) -> Float[Tensor, "..."]:
        mu, log_sigma = components
        precision = (-2 * log_sigma).exp()
        # ||(z - mu) / sigma||^2 as matrix products: every code meets every component.
        rows = z.flatten(0, -2)
        distance = rows.square() @ precision.T - 2 * rows @ (mu * precision).T + (mu.square() * precision).sum(1)
        log_density = -0.5 * (distance + math.log(2 * math.pi) * z.shape[-1]) - log_sigma.sum(1)
        # Exponentials that underflow are many times as slow as others, and far components are nearly all there are.
        log_density = torch.maximum(log_density, log_density.detach().amax(1, keepdim=True) - FAR)
        return (log_density.logsumexp(1) - math.log(len(mu))).view(z.shape[:-1])

    def draw(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """A component by chance, then a code of it."""
        mu, log_sigma = self.components()
        chosen = noise.categorical(torch.ones(1, len(mu)))
        return mu[chosen] + temperature * log_sigma[chosen].exp() * noise.normal(mu.shape[1])

    def distribution(self) -> MixtureSameFamily:
        """The mixture."""
        mu, log_sigma = self.components()
        return MixtureSameFamily(Categorical(torch.ones_like(mu[:, 0])), Independent(Normal(mu, log_sigma.exp()), 1))


class Mixture(_Mixture):
    """A mixture of Gaussians whose centres and scales are learned; at first they lie like N(0, I) all together.

    Arguments:
        latent: dimensions. components: K. learned: dimensions, the first ones, that are a mixture, while the others are N(0, I)
            apart from them; None: all.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018; MoG), https://arxiv.org/abs/1705.07120
    """

    def __init__(self, latent: int, components: int, *, learned: int | None = None) -> None:
        super().__init__()
        learned = latent if learned is None else learned
        self.others = latent - learned
        self.mu = nn.Parameter(torch.randn(components, learned) * math.sqrt(1 - SPREAD**2))
        self.log_sigma = nn.Parameter(torch.full((components, learned), math.log(SPREAD)))

    def _learned(self) -> Components:
        return Components(self.mu, self.log_sigma.clamp(-10, 10))

    def components(self) -> Components:
        """As they were learned."""
        return Components(*(F.pad(part, (0, self.others)) for part in self._learned()))

    def log_prob(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """log of the mean of the K densities; of what is N(0, I) in closed form."""
        learned, others = z.split((z.shape[-1] - self.others, self.others), -1)
        return self._mixed(learned, self._learned()) + losses.normal_log_prob(others, 0.0, 0.0)


class Vamp(_Mixture):
    """The mixture of the posteriors of learned pseudo-inputs: p(z) = 1/K sum_k q(z|u_k).

    Arguments:
        shape: of one example.
        components: K.
        bounded: whether examples lie in [0, 1], as images do.
        posterior: from pseudo-inputs to their posteriors; the encoder belongs to the model, not to this module.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
    """

    def __init__(self, shape: Sequence[int], components: int, *, bounded: bool, posterior: Callable[[Tensor], Gaussian]) -> None:
        super().__init__()
        start = torch.rand(components, *shape) if bounded else torch.randn(components, *shape)
        self.pseudo_inputs = nn.Parameter(start)
        self.bounded, self.posterior = bounded, posterior

    def components(self) -> Components:
        """The posteriors of the pseudo-inputs."""
        q = self.posterior(self.pseudo_inputs.clamp(0, 1) if self.bounded else self.pseudo_inputs)
        return Components(q.mu, q.log_diagonal)


class Flow(Prior):
    """A neural spline flow of coupling layers, N(0, I) at its start.

    Arguments:
        latent: dimensions; from two on, since a coupling needs two halves.
        layers, hidden: number of couplings, and widths of their networks.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
        Variational Lossy Autoencoder (Chen et al., 2017), https://arxiv.org/abs/1611.02731
    """

    def __init__(self, latent: int, *, layers: int = 4, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        import zuko

        self.latent = latent
        # Two passes make each autoregressive layer a coupling, which is as fast backwards as forwards.
        self.flow = zuko.flows.NSF(latent, transforms=layers, hidden_features=hidden, passes=2)
        for transform in self.flow.transform.transforms:
            if hasattr(transform, "hyper"):
                nn.init.zeros_(transform.hyper[-1].weight)
                nn.init.zeros_(transform.hyper[-1].bias)

    def log_prob(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """By the change of variables."""
        return self.flow().log_prob(z.flatten(0, -2)).view(z.shape[:-1])

    def draw(self, noise: Noise, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """Standard normal noise through the inverse of the flow."""
        return self.flow().transform.inv(temperature * noise.normal(self.latent))

    def distribution(self) -> Distribution:
        """The flow itself."""
        return self.flow()
