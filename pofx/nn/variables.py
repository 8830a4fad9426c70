"""Variables of an example in the order in which they are drawn, and what each may be, given numbers about it."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import DataSpec, UsageError
from pofx.losses import LEVELS, categorical_nll, discretised_logistic_nll, normal_log_prob
from pofx.nn.levels import FLOOR, START, choose

Kind = Literal["coin", "level", "number", "category"]


class Variable(NamedTuple):
    """kind: coin (0 or 1), level (of 256), number, category (one-hot). start, stop: its features. outputs: where its numbers stand.
    missing: feature that is 1 where a number is empty; None: it never is."""

    kind: Kind
    start: int
    stop: int
    outputs: slice
    missing: int | None = None


class Variables(nn.Module):
    """p(variable | numbers about it) for pixels in raster order (channel by channel), features of vectors, and columns of tables.

    coin: a logit. category: a logit each. number: a mixture of Gaussians, of a level of rounded logistic variables: logits of the
    weights, centres, log scales. Whether a number of a table is empty comes before the number, of which nothing is asked then.

    Arguments:
        components: of a mixture.
    Raises `UsageError` for images without levels.

    Attributes:
        order: of the features: those of the first variable come first. outputs: how many numbers there are.

    References:
        RNADE: The real-valued neural autoregressive density-estimator (Uria et al., 2013), https://arxiv.org/abs/1306.0186
    """

    def __init__(self, spec: DataSpec, components: int) -> None:
        super().__init__()
        self.shape, self.components = spec.shape, components
        self.variables: list[Variable] = []
        self.outputs = 0
        if spec.kind == "images":
            if spec.bits is None:
                raise UsageError("pixels are given probabilities by level, and these images have none: give --data.bits 8 or 1")
            channels, height, width = spec.shape
            for place in torch.arange(math.prod(spec.shape)).view(channels, height * width).T.flatten().tolist():
                self._add("coin" if spec.bits == 1 else "level", place)
        elif spec.columns:
            flags = {column.name: column.start for column in spec.columns if column.kind == "missing"}
            for column in spec.columns:
                if column.kind == "category":
                    self._add("category", column.start, column.stop)
                elif column.kind != "missing":
                    flag = flags.get(column.name)
                    if flag is not None:
                        self._add("coin", flag)
                    self._add("number", column.start, missing=flag)
        else:
            for place in range(spec.shape[0]):
                self._add("number", place)
        order = [place for variable in self.variables for place in range(variable.start, variable.stop)]
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def _add(self, kind: Kind, start: int, stop: int | None = None, missing: int | None = None) -> None:
        stop = start + 1 if stop is None else stop
        size = {"coin": 1, "category": stop - start}.get(kind, 3 * self.components)
        self.variables.append(Variable(kind, start, stop, slice(self.outputs, self.outputs + size), missing))
        self.outputs += size

    @property
    def input_variables(self) -> list[int]:
        """The variable of each feature in `order`, from 1 on."""
        return [number for number, variable in enumerate(self.variables, 1) for _ in range(variable.start, variable.stop)]

    @property
    def output_variables(self) -> list[int]:
        """The variable of each output, from 1 on."""
        return [number for number, variable in enumerate(self.variables, 1) for _ in range(variable.outputs.start, variable.outputs.stop)]

    def nll(self, outputs: Float[Tensor, "batch outputs"], x: Float[Tensor, "batch features"]) -> Float[Tensor, " batch"]:
        """-log p(x) in nats per example."""
        total = x.new_zeros(len(x))
        for kind in ("coin", "level", "number"):
            found = [variable for variable in self.variables if variable.kind == kind]
            if not found:
                continue
            size = found[0].outputs.stop - found[0].outputs.start
            # All of one kind: no need to gather.
            about = outputs if size * len(found) == self.outputs else torch.cat([outputs[:, variable.outputs] for variable in found], 1)
            about, values = about.unflatten(1, (-1, size)), x[:, [variable.start for variable in found]]
            if kind == "coin":
                total = total + F.softplus((1 - 2 * values) * about[..., 0]).sum(1)
                continue
            nll = -self._log_p(kind, about, values).logsumexp(-1)
            if any(variable.missing is not None for variable in found):
                # Of an empty number nothing is asked: feature 0 of `there` is a column of ones.
                there = torch.cat((torch.ones_like(x[:, :1]), 1 - x), 1)
                nll = nll * there[:, [0 if variable.missing is None else variable.missing + 1 for variable in found]]
            total = total + nll.sum(1)
        for variable in self.variables:
            if variable.kind == "category":
                total = total + categorical_nll(outputs[:, variable.outputs], x[:, variable.start : variable.stop])
        return total

    def _mixture(self, kind: Kind, about: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, centres and log scales of the components, (..., components)."""
        logits, centres, log_scales = about.unflatten(-1, (3, -1)).unbind(-2)
        # The components start at different places: equal ones would stay equal.
        low, high, start = (0.0, 1.0, START) if kind == "level" else (-1.5, 1.5, 0.0)
        spread = torch.linspace(low, high, self.components, device=about.device, dtype=about.dtype)
        return logits, centres + spread, (log_scales + start).clamp(min=FLOOR)

    def _log_p(self, kind: Kind, about: Tensor, value: Tensor) -> Tensor:
        """log of weight times probability of each component."""
        logits, centres, log_scales = self._mixture(kind, about)
        if kind == "level":
            return logits.log_softmax(-1) - discretised_logistic_nll(centres, log_scales, value[..., None])
        return logits.log_softmax(-1) + normal_log_prob(value[..., None, None], centres[..., None], 2 * log_scales[..., None])

    def draw(
        self,
        variable: Variable,
        about: Tensor,
        x: Tensor,
        uniform: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """A value of a variable for its features in x, from the numbers about it (n, numbers) and random numbers (n, 2) in [0, 1): which
        component, and where in it.

        temperature: divides logits, and multiplies scales.
        """
        if variable.kind == "coin":
            return (uniform[:, :1] < (about / temperature).sigmoid()).to(x.dtype)
        if variable.kind == "category":
            return F.one_hot(choose(about, uniform[:, 0], temperature), variable.stop - variable.start).to(x.dtype)
        logits, centres, log_scales = self._mixture(variable.kind, about)
        chosen = choose(logits, uniform[:, 0], temperature)[:, None]
        centre, scale = centres.gather(1, chosen), temperature * log_scales.gather(1, chosen).exp()
        place = uniform[:, 1:].to(x.dtype).clamp(1e-6, 1 - 1e-6)
        if variable.kind == "level":
            return (centre + scale * place.logit()).mul(LEVELS - 1).round().clamp(0, LEVELS - 1) / (LEVELS - 1)
        value = centre + scale * torch.special.ndtri(place)
        # As the data have it: an empty number stands at its mean, 0.
        return value if variable.missing is None else value * (1 - x[:, variable.missing, None])
