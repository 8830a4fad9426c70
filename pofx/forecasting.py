"""Forecasts of sequences: futures drawn from a model, and two baselines that know little; what both are measured by.

References:
    Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting and Raftery, 2007), https://doi.org/10.1198/016214506000001437
"""

import abc
import math
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx import examples
from pofx.core import Forecasts, Model, Noise, UsageError
from pofx.data.dataset import Codec, Split
from pofx.data.series import SeriesCodec
from pofx.data.vectors import VectorCodec

#: Futures that are drawn of each past, and the share of a window that is forecast from what comes before it.
DRAWS, HORIZON = 200, 0.25
#: Training windows that a baseline is fitted to, and numbers of a past that the linear one sees, at most.
FITTED, SEEN = 20_000, 64
#: Sequences that futures are drawn of at once.
ROWS = 1024


def horizon_of(steps: int) -> int:
    """How many of a window's steps are forecast from those before them. Raises `UsageError` for a window of one step."""
    if steps < 2:
        raise UsageError("a window of one step has no past to forecast from: give a larger --data.window")
    return max(1, round(HORIZON * steps))


def futures(
    model: Model, x: Float[Tensor, "n time features"], horizon: int, *, draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, "draws n horizon features"]:
    """Drawn continuations of each sequence, on the CPU; those of row i are a function of (seed, i)."""
    found = []
    with examples.asking(model):
        rows = x.repeat_interleave(draws, 0)
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            noise = Noise(seed, len(part), first=first, device=model.device)
            found.append(cast(Forecasts, model).forecast(part.to(model.device), horizon, noise=noise).cpu())
    return torch.cat(found).unflatten(0, (len(x), draws)).transpose(0, 1).numpy().astype(np.float64)


class Baseline(abc.ABC):
    """A forecast that is Gaussian at each step: a mean, and the spread of its errors on training windows."""

    def __init__(self, x: Float[np.ndarray, "n time features"], horizon: int) -> None:
        self.horizon = horizon
        past, future = x[:, :-horizon], x[:, -horizon:]
        self._fit(past, future)
        # (horizon, features); never 0, where a series repeats exactly.
        self.spread = np.sqrt(np.square(future - self.mean(past)).mean(0)).clip(1e-6)

    @abc.abstractmethod
    def _fit(self, past: Float[np.ndarray, "n time features"], future: Float[np.ndarray, "n horizon features"]) -> None: ...

    @abc.abstractmethod
    def mean(self, past: Float[np.ndarray, "n time features"]) -> Float[np.ndarray, "n horizon features"]:
        """The expected future of each past."""

    def interval(
        self, past: Float[np.ndarray, "n time features"], share: float
    ) -> tuple[Float[np.ndarray, "n horizon features"], Float[np.ndarray, "n horizon features"]]:
        """The central interval that holds so large a share."""
        from scipy.stats import norm

        mean, reach = self.mean(past), float(norm.ppf(0.5 + share / 2)) * self.spread
        return mean - reach, mean + reach

    def crps(
        self, past: Float[np.ndarray, "n time features"], future: Float[np.ndarray, "n horizon features"]
    ) -> Float[np.ndarray, "n horizon features"]:
        """The CRPS of a Gaussian, in closed form: s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (x - mean) / s."""
        from scipy.stats import norm

        z = (future - self.mean(past)) / self.spread
        return self.spread * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


class Naive(Baseline):
    """Nothing changes: the last step, again and again."""

    def _fit(self, past: np.ndarray, future: np.ndarray) -> None:
        return

    def mean(self, past: Float[np.ndarray, "n time features"]) -> Float[np.ndarray, "n horizon features"]:
        """The last step of each past."""
        return np.repeat(past[:, -1:], self.horizon, 1)


class Linear(Baseline):
    """Each future step is a linear function of the last steps of the past, by least squares with a slight ridge."""

    def _fit(self, past: np.ndarray, future: np.ndarray) -> None:
        from sklearn.linear_model import Ridge

        self._steps = max(1, min(past.shape[1], SEEN // past.shape[2]))
        self._ridge = Ridge(alpha=1.0).fit(self._seen(past), future.reshape(len(future), -1))

    def _seen(self, past: np.ndarray) -> np.ndarray:
        return past[:, -self._steps :].reshape(len(past), -1)

    def mean(self, past: Float[np.ndarray, "n time features"]) -> Float[np.ndarray, "n horizon features"]:
        """What the last steps say."""
        return self._ridge.predict(self._seen(past)).reshape(len(past), self.horizon, -1)  # type: ignore[no-any-return]


def baselines(train: Split, horizon: int) -> dict[str, Baseline]:
    """The naive and the linear forecast, fitted to training windows."""
    x = examples.some(train, FITTED).x.numpy().astype(np.float64)
    return {"naive": Naive(x, horizon), "linear": Linear(x, horizon)}


def interval(
    drawn: Float[np.ndarray, "draws n horizon features"], share: float
) -> tuple[Float[np.ndarray, "n horizon features"], Float[np.ndarray, "n horizon features"]]:
    """The central interval that holds so large a share of futures.

    Its ends are quantiles of draws whose i-th of n stands for i / (n + 1), which is the share of further draws expected below it: an
    interval of few draws holds what it promises, too.
    """
    low, high = np.quantile(drawn, ((1 - share) / 2, (1 + share) / 2), axis=0, method="weibull")
    return low, high


def crps(drawn: Float[np.ndarray, "draws n ..."], x: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    """The continuous ranked probability score E|X - x| - E|X - X'| / 2 of each number, without bias, from draws X of its forecast;
    0 for a certain forecast that is right, and the absolute error of one that is certain."""
    draws = len(drawn)
    ordered = np.sort(drawn, axis=0)
    # The sum of |X_i - X_j| over pairs, from their order.
    weights = (2 * np.arange(1, draws + 1) - draws - 1).reshape(-1, *(1,) * (drawn.ndim - 1))
    apart = (weights * ordered).sum(0) * 2 / (draws * (draws - 1))
    return np.abs(drawn - x).mean(0) - apart / 2


def in_units(codec: Codec, drawn: Float[np.ndarray, "draws n horizon features"]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the features, and futures in the source's units. Raises `UsageError` for a codec that is not of sequences of numbers."""
    if not isinstance(codec, (SeriesCodec, VectorCodec)):
        raise UsageError(f"futures of {codec.name} cannot be told in the source's units: forecast a series")
    names = codec.names if isinstance(codec, SeriesCodec) else tuple(f"x{i}" for i in range(drawn.shape[-1]))
    return names, drawn * np.array(codec.std) + np.array(codec.mean)


def later(times: np.ndarray, horizon: int) -> np.ndarray:
    """The next times after those of a series, as far apart as most of its steps are; dates as text."""
    apart = np.median(np.diff(times).astype(np.float64))
    if times.dtype.kind == "M":
        ahead = (times[-1] + (apart * np.arange(1, horizon + 1)).round().astype("timedelta64[ns]")).astype("datetime64[s]")
        whole_days = bool((ahead == ahead.astype("datetime64[D]")).all())
        return np.datetime_as_string(ahead.astype("datetime64[D]") if whole_days else ahead)
    return np.asarray(times[-1] + apart * np.arange(1, horizon + 1))
