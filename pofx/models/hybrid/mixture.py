"""The mixture of text models: what a network and n-grams expect next, multiplied, each trusted as far as the context tells.

log p(w|c) = sum_k a_k(c) log p_k(w|c) - log Z(c), where the exponents a(c) = b + W f(c) are linear in how sure each part is of what
comes: f(c) holds for each k the entropy of p_k(.|c), and the log-probability of its likeliest token. Nothing but the context decides
the exponents, so that p sums to one over all w in every context.

A mixture is not trained: `pofx mix RUN RUN2 ...` makes it of trained runs, and chooses W and b on text that none of them learned from.

On tiny-shakespeare, a GPT of 3 minutes with 1.516 nats per character over the first 200 windows of 256 of the test part, and n-grams
of order 3, 6 and 9 (1.78, 1.563 and 1.566 there) give 1.435; with the one of order 6 alone 1.447; exponents that do not depend on the
context 1.444 and 1.452, and weighted sums of probabilities, with weights that do, 1.447 and 1.456. Over all of the test part, n-grams
that have learned the validation part as well: 1.436, the network alone 1.553.

References:
    Log-linear Interpolation of Language Models (Klakow, 1998), https://www.isca-archive.org/icslp_1998/klakow98_icslp.html
    Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002), https://doi.org/10.1162/089976602760128018
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pofx import core, discovery
from pofx.core import Batch, Budget, DataSpec, Model, Predicts, Recipe, UsageError
from pofx.nn.sampling import Read
from pofx.nn.writing import Writes

MADE = "a mixture is made of trained runs, not trained: pofx mix RUN RUN2"
STEPS = 100
"""Iterations that choose the exponents, at most."""
PENALTY = 1e-3
"""On the squares of W, for standardised f."""


class Mixture(Model, Writes):
    """A product of the distributions of other models of the same tokens.

    Raises `UsageError` where it has no parts.
    """

    kinds = frozenset({"tokens"})

    @dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """What is mixed."""

        parts: tuple[str, ...] = ()
        """Name and configuration of each part, as JSON; `pofx mix` writes it."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if not config.parts:
            raise UsageError(MADE)
        found: list[Any] = [json.loads(part) for part in config.parts]
        classes = [discovery.model(part["model"]) for part in found]
        self.parts = nn.ModuleList(cls(spec, cls.Config.from_json(part["config"])) for cls, part in zip(classes, found, strict=True))
        count = len(found)
        self.register_buffer("slopes", torch.zeros(count, 2 * count))
        self.register_buffer("exponents", torch.full((count,), 1 / count))
        self.resizable = frozenset(f"parts.{i}.{name}" for i, part in enumerate(self.parts) for name in part.resizable)
        self.window = min(part.window for part in self.parts)

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """There is none. Raises `UsageError`, which says what to do instead."""
        raise UsageError(MADE)

    @property
    def device(self) -> torch.device:
        """Where the exponents are."""
        return self.exponents.device

    def players(self) -> tuple[core.Player, ...]:
        """None."""
        return ()

    def fit(self, batches: Iterator[Batch]) -> None:
        """Raises `UsageError`, which says what to do instead."""
        raise UsageError(MADE)

    def logits(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """log p of every token at each place of x up to a constant, given those before it."""
        return self._multiply(self.log_p(x))

    def log_p(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary parts"]:
        """log p of every token at each place of x under each part."""
        return torch.stack([_whole(part).logits(x).to(self.exponents.dtype).log_softmax(-1) for part in self.parts], -1)

    def reader(self, x: Int64[Tensor, "batch time"]) -> Read:
        """From rising positions to the logits of what stands there, from those of each part's own reader."""
        reads = [_whole(part).reader(x) for part in self.parts]
        return lambda place: self._multiply(torch.stack([read(place).to(self.exponents.dtype).log_softmax(-1) for read in reads], -1))

    def _multiply(self, log_p: Float[Tensor, "*batch vocabulary parts"]) -> Float[Tensor, "*batch vocabulary"]:
        exponents = self.exponents + sureness(log_p) @ self.slopes.T
        return (log_p @ exponents[..., None])[..., 0]

    def choose(self, log_p: Float[Tensor, "n vocabulary parts"], x: Int64[Tensor, " n"]) -> float:
        """Chooses the exponents so that tokens x are likely, given `log_p` of what each part expected of them; a convex problem.

        Returns the nats per token that are reached.
        """
        f = sureness(log_p)
        mean, std = f.mean(0), f.std(0, correction=0).clamp(min=1e-6)
        f = (f - mean) / std
        slopes, exponents = self.slopes.new_zeros(self.slopes.shape), self.exponents.clone().fill_(1 / len(self.exponents))
        optimizer = torch.optim.LBFGS([slopes.requires_grad_(), exponents.requires_grad_()], max_iter=STEPS, line_search_fn="strong_wolfe")

        def nll() -> Tensor:
            logits = (log_p @ (exponents + f @ slopes.T)[..., None])[..., 0]
            return nn.functional.cross_entropy(logits, x)

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = nll() + PENALTY * slopes.square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            optimizer.step(closure)
        with torch.no_grad():
            self.slopes.copy_(slopes / std)
            self.exponents.copy_(exponents - self.slopes @ mean)
            return float(nll())


def _whole(part: nn.Module) -> Any:
    assert isinstance(part, Predicts)
    return part


def sureness(log_p: Float[Tensor, "*batch vocabulary parts"]) -> Float[Tensor, "*batch features"]:
    """Of each part's distribution the entropy in nats, and the largest log-probability."""
    return torch.cat((-(log_p.exp() * log_p).sum(-2), log_p.amax(-2)), -1)
