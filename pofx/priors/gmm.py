"""A mixture of Gaussians, as many as held-out codes ask for: quick, and the usual choice for codes of some dozens of numbers."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pofx.core import Noise, UsageError, mix
from pofx.priors import Density
from pofx.progress import Steps

#: Codes up to this length have full covariances, longer ones diagonal ones (in principal axes).
FULL = 64
#: Numbers of components that are tried, from the first on, as long as held-out codes become likelier.
LADDER = (1, 2, 5, 10, 20, 50, 100)
#: Codes that a mixture is fitted to, and codes that each of its components must have when nobody asked for a number.
FITTED, EACH = 20_000, 10


class Prior(Density):
    """p(y) = sum_k w_k N(y; mu_k, C_k), by expectation maximisation.

    Arguments:
        weights: (components,). means: (components, features).
        factors: lower triangular (components, features, features), C = L L^T; or standard deviations (components, features).

    References:
        From Variational to Deterministic Autoencoders (Ghosh et al., 2020), section 4: ex-post density estimation,
        https://arxiv.org/abs/1903.12436
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor) -> None:
        self.weights, self.means, self.factors = weights, means, factors

    @classmethod
    def fit(
        cls,
        y: Float[Tensor, "n features"],
        held: Float[Tensor, "m features"],
        *,
        seed: int,
        steps: Steps,
        components: int | None = None,
    ) -> "Prior":
        """The mixture; its number of components is the first of 1, 2, 5, 10, ... that the next one does not improve upon.

        Arguments:
            components: how many, where that is given. Raises `UsageError` for more than half of the codes.
        """
        if components is not None:
            if components < 1:
                raise UsageError(f"--components must be at least 1, not {components}")
            if 2 * components > len(y):
                raise UsageError(
                    f"{components} components need {2 * components:,} codes, and there are {len(y):,}: take fewer --components"
                )
            return cls._of(y, components, seed)
        ladder = [count for count in LADDER if count == 1 or count * EACH <= len(y)]
        best, highest = None, -math.inf
        for count in steps.track(ladder, len(ladder)):
            found = cls._of(y, count, seed)
            score = float(found.log_prob(held).mean())
            if best is not None and score <= highest:
                break
            best, highest = found, score
        assert best is not None
        return best

    @classmethod
    def _of(cls, y: Tensor, components: int, seed: int) -> "Prior":
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(
            components,
            covariance_type="full" if y.shape[1] <= FULL else "diag",
            tol=1e-2,
            max_iter=50,
            init_params="k-means++",
            random_state=mix(seed, "mixture", components) % 2**31,
        )
        with warnings.catch_warnings():
            # The last hundredths of a nat would cost most of the time.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(y[:FITTED].numpy())
        covariances = torch.from_numpy(mixture.covariances_)
        factors = torch.linalg.cholesky(covariances) if covariances.ndim == 3 else covariances.sqrt()
        return cls(torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_), factors)

    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n features"]:
        """A component by its weight, then its Gaussian, whose standard deviation is multiplied by `temperature`."""
        which = noise.categorical(self.weights).cpu()
        spread = noise.normal(self.means.shape[1]).cpu().to(torch.float64)
        factors = self.factors[which]
        spread = (factors @ spread[:, :, None])[:, :, 0] if factors.ndim == 3 else factors * spread
        return self.means[which] + temperature * spread

    def log_prob(self, y: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """log p(y)."""
        full = self.factors.ndim == 3
        diagonals = self.factors.diagonal(dim1=1, dim2=2) if full else self.factors
        constants = self.weights.log() - diagonals.log().sum(1) - 0.5 * y.shape[1] * math.log(2 * math.pi)
        nats = []
        for mean, factor, constant in zip(self.means, self.factors, constants, strict=True):
            centred = (y - mean).T
            whitened = torch.linalg.solve_triangular(factor, centred, upper=False) if full else centred / factor[:, None]
            nats.append(constant - 0.5 * whitened.square().sum(0))
        return torch.stack(nats).logsumexp(0)

    def state(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """No settings; all of its arguments."""
        return {}, {"weights": self.weights, "means": self.means, "factors": self.factors}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Prior":
        """The mixture of `state`."""
        return cls(**tensors)

    def describe(self) -> str:
        """How many components."""
        count = len(self.weights)
        return "one Gaussian" if count == 1 else f"a mixture of {count} Gaussians"
