"""Codes that are categories and numbers at once: how they are drawn, and how much of them a network reads."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pofx import losses
from pofx.core import Noise, UsageError

FINEST = 0.05
"""Smallest standard deviation of what is read of a continuous code: the nats that it can tell are finite."""


class Codes(nn.Module):
    """Categories, each one-hot and evenly distributed, then numbers, uniform in [-1, 1].

    Arguments:
        categories: values of each category. continuous: how many numbers.

    Attributes:
        width: length of a code. outputs: length of a reading: logits of each category, then means and log deviations of the numbers.
        entropy: of each code in nats. names: of each code. counts: values of each code, 0 for a number.
    """

    def __init__(self, categories: Sequence[int], continuous: int) -> None:
        super().__init__()
        self.categories, self.continuous = tuple(categories), continuous
        self.counts = self.categories + (0,) * continuous
        self.width = sum(self.categories) + continuous
        self.outputs = sum(self.categories) + 2 * continuous
        self.entropy = tuple(math.log(count) for count in self.categories) + (math.log(2),) * continuous
        self.names = tuple(f"c{i}" for i in range(len(self.entropy)))

    def random(self, n: int, device: torch.device) -> Float[Tensor, "n width"]:
        """Codes by the global generator."""
        parts = [F.one_hot(torch.randint(count, (n,), device=device), count).float() for count in self.categories]
        return torch.cat((*parts, 2 * torch.rand(n, self.continuous, device=device) - 1), 1)

    def draw(self, noise: Noise) -> Float[Tensor, "n width"]:
        """A code for each row of noise."""
        parts = [F.one_hot(noise.categorical(torch.ones(1, count)), count).float() for count in self.categories]
        return torch.cat((*parts, 2 * noise.uniform(self.continuous) - 1), 1)

    def fixed(self, code: Float[Tensor, "batch width"], values: Mapping[str, float]) -> Float[Tensor, "batch width"]:
        """The codes with some of them, by their names, at other values: of a category its number from 0 on, of a number one in [-1, 1].

        Raises `UsageError` for a name or a value that is none.
        """
        code = code.clone()
        for name, value in values.items():
            if name not in self.names:
                raise UsageError(f"there is no code {name!r}: the codes are {', '.join(map(self.said, range(len(self.names))))}")
            index = self.names.index(name)
            count = self.counts[index]
            if not (value in range(count) if count else -1 <= value <= 1):
                raise UsageError(f"{name}={value:g} is not possible: {self.said(index)}")
            if count:
                code[:, sum(self.categories[:index]) :][:, :count] = F.one_hot(torch.tensor(int(value)), count).to(code)
            else:
                code[:, sum(self.categories) + index - len(self.categories)] = value
        return code

    def said(self, index: int) -> str:
        """A code with its values, in words."""
        values = f"0 to {self.counts[index] - 1}" if self.counts[index] else "a number from -1 to 1"
        return f"{self.names[index]} ({values})"

    def categorical(self, code: Float[Tensor, "batch width"]) -> tuple[Float[Tensor, "batch values"], ...]:
        """The part of each category."""
        return code[:, : sum(self.categories)].split(list(self.categories), 1) if self.categories else ()

    def _read(self, reading: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        logits = reading[:, : sum(self.categories)]
        mean, log_scale = reading[:, sum(self.categories) :].split(self.continuous, 1) if self.continuous else (reading[:, :0],) * 2
        return self.categorical(logits), mean, log_scale.clamp(math.log(FINEST), 1.0)

    def point(self, reading: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch width"]:
        """The probabilities of each category and the means of the numbers."""
        logits, mean, _ = self._read(reading)
        return torch.cat((*(part.softmax(1) for part in logits), mean), 1)

    def information(self, reading: Float[Tensor, "batch outputs"], code: Float[Tensor, "batch width"]) -> Float[Tensor, "batch codes"]:
        """H(c) + log Q(c|x) of each code in nats, whose mean is at most I(c; x): Q is a softmax for a category and a Gaussian for
        a number.

        References:
            The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov, 2003),
            https://papers.nips.cc/paper/2410
        """
        logits, mean, log_scale = self._read(reading)
        nll = [losses.categorical_nll(part, c)[:, None] for part, c in zip(logits, self.categorical(code), strict=True)]
        numbers = code[:, sum(self.categories) :]
        gaussian = 0.5 * ((numbers - mean) * (-log_scale).exp()).square() + log_scale + 0.5 * math.log(2 * math.pi)
        return torch.tensor(self.entropy, device=code.device) - torch.cat((*nll, gaussian), 1)

    def distribution(self, device: torch.device) -> "CodeDistribution":
        """The same as a distribution, whose event is one code."""
        return CodeDistribution(self, device)


class CodeDistribution(Distribution):
    """The distribution of codes, with its moments."""

    def __init__(self, codes: Codes, device: torch.device) -> None:
        super().__init__(event_shape=torch.Size((codes.width,)), validate_args=False)
        self.codes, self.device = codes, device

    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "..."]:
        """Codes by the global generator."""
        return self.codes.random(math.prod(sample_shape), self.device).view(*sample_shape, self.codes.width)

    def log_prob(self, value: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """-log K for each category of K values, as a probability, and -log 2 for each number, as a density; -inf where a category is
        not one-hot or a number beyond [-1, 1]."""
        code = value.reshape(-1, self.codes.width)
        inside = (code[:, sum(self.codes.categories) :].abs() <= 1).all(1)
        for part in self.codes.categorical(code):
            inside = inside & ((part == 0) | (part == 1)).all(1) & (part.sum(1) == 1)
        return torch.where(inside, -sum(self.codes.entropy), -torch.inf).view(value.shape[:-1])

    @property
    def mean(self) -> Float[Tensor, " width"]:
        """1/K for each place of a category of K values, 0 for a number."""
        parts = [torch.full((count,), 1 / count) for count in self.codes.categories]
        return torch.cat((*parts, torch.zeros(self.codes.continuous))).to(self.device)

    @property
    def variance(self) -> Float[Tensor, " width"]:
        """p (1 - p) for each place of a category, 1/3 for a number."""
        share = self.mean[: sum(self.codes.categories)]
        return torch.cat((share * (1 - share), torch.full((self.codes.continuous,), 1 / 3, device=self.device)))
