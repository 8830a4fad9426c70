"""p(x | z): what the output of a decoder says about the data, for images, vectors and the mixed columns of tables."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx import losses
from pofx.core import DataSpec, Noise, UsageError

Kind = Literal["bernoulli", "gaussian", "logistic", "logistic_mixture", "categorical", "squared_error"]
Space = Literal["binary", "8-bit", "density"]

# A scale is learned, starts small so that the first gradients are about x and not about the code (which would
# collapse), and stays above exp(-7) of the data's unit: on constant features the likelihood would grow without bound.
START, FLOOR = -2.0, -7.0
COMPONENTS = 5
"""Logistic variables in the mixture of a pixel."""
LEVELWISE = ("logistic", "logistic_mixture", "categorical")
"""Kinds that give each of the 256 levels of a pixel a probability."""
CONDITION = "leave --model.likelihood out, so that it is a likelihood of these data"
"""What to do to have likelihoods."""


class Observation(nn.Module):
    """The distribution of x given a decoder's output of the shape `outputs`.

    bernoulli: logits of coins. logistic: centres of 8-bit pixels, one learned scale for all. logistic_mixture: weights,
    centres and scales of five such variables a pixel. categorical: a logit for each of the 256 levels of a pixel. gaussian:
    means, with a fixed scale, or else one learned scale for all images, or one for each feature of a vector. squared_error: a
    Gaussian of variance one without its constant, which is a loss and no likelihood. The means of images are squashed into
    [0, 1], except under the logistic ones, whose lowest and highest level take the tails.

    In a table the numbers follow `kind` (nothing is asked of an empty one), categories are softmax logits and missing
    indicators coins.

    Arguments:
        spec: of the data.
        kind: as above. Raises `UsageError` where it does not fit the data.
        scale: standard deviation of a gaussian, in units of x as the model sees it; None: it is learned.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications (Salimans et
        al., 2017), https://arxiv.org/abs/1701.05517
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2020), https://arxiv.org/abs/2006.13202
    """

    def __init__(self, spec: DataSpec, kind: Kind, *, scale: float | None = None) -> None:
        super().__init__()
        images = spec.kind == "images"
        if kind == "bernoulli" and not images:
            raise UsageError(f"bernoulli is for images in [0, 1], and these data are {spec.kind}: choose gaussian or squared_error")
        if kind in LEVELWISE and spec.bits != 8:
            raise UsageError(f"{kind} is for 8-bit images, and these data are not: choose gaussian or bernoulli")
        if scale is not None and kind == "gaussian" and spec.columns and not any(c.kind in ("number", "integer") for c in spec.columns):
            raise UsageError("scale is of a table's numbers, and this one has none: leave it out")
        if scale is not None and kind != "gaussian":
            raise UsageError(f"scale is of a gaussian likelihood, and this one is {kind}: leave it out, or choose gaussian")
        self.spec, self.kind, self.scale = spec, kind, scale
        channels, *size = spec.shape if images else (0,)
        #: Shape of the decoder's output for one example.
        self.outputs = tuple(spec.shape)
        if kind == "logistic_mixture":
            self.outputs = (channels * 3 * COMPONENTS, *size)
        elif kind == "categorical":
            self.outputs = (channels * losses.LEVELS, *size)
        if scale is not None:
            self.register_buffer("log_scale", torch.tensor(math.log(scale)))
        elif kind == "logistic" or (kind == "gaussian" and images):
            self.log_scale = nn.Parameter(torch.tensor(START))
        elif kind == "gaussian" and self._numbers():
            self.log_scale = nn.Parameter(torch.full((len(self._numbers()),) if spec.columns else spec.shape, START))

    @staticmethod
    def natural(spec: DataSpec) -> Kind:
        """The kind that is a likelihood of these data."""
        return {1: "bernoulli", 8: "logistic"}.get(spec.bits or 0, "gaussian")  # type: ignore[return-value]

    @property
    def space(self) -> Space | None:
        """The space of the likelihood; None where `nll` is a loss only (cross-entropy or a density of 8-bit pixels)."""
        if self.kind in LEVELWISE:
            return "8-bit"
        if self.kind != self.natural(self.spec):
            return None
        return "binary" if self.kind == "bernoulli" else "density"

    def likelihood_space(self) -> Space:
        """The same. Raises `UsageError` where there is none."""
        if self.space is None:
            natural = self.natural(self.spec)
            raise UsageError(f"{self.kind} is a loss on these data, not a likelihood: train with --model.likelihood {natural}")
        return self.space

    @property
    def note(self) -> str:
        """What p(x|z) is and whether its likelihoods can be compared, in a sentence."""
        name = self.kind.replace("_", " ")
        if self.space is None:
            return f"p(x|z) is {name}, which is a loss on these data and no likelihood: bits and nats say nothing beside others"
        return f"p(x|z) is {name}: likelihoods are of {'densities' if self.space == 'density' else f'{self.space} images'}"

    def _numbers(self) -> list[int]:
        """Features that are numbers; all of them where the data are no table."""
        if not self.spec.columns:
            return list(range(self.spec.shape[-1]))
        return [column.start for column in self.spec.columns if column.kind in ("number", "integer")]

    def _indicators(self) -> dict[int, int]:
        """From the feature of a number to the feature that says that it is missing."""
        missing = {column.name: column.start for column in self.spec.columns if column.kind == "missing"}
        numbers = (column for column in self.spec.columns if column.kind in ("number", "integer"))
        return {column.start: missing[column.name] for column in numbers if column.name in missing}

    @property
    def _floored(self) -> Tensor:
        # A scale that a person has fixed is theirs.
        return self.log_scale.clamp(min=FLOOR) if self.scale is None else self.log_scale

    def _mixture(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log weights, centres and log scales, each (batch, channels, components, height, width)."""
        logits, centres, log_scales = output.unflatten(1, (3, -1, COMPONENTS)).unbind(1)
        # The components start at different levels: equal ones would stay equal.
        start = torch.linspace(0, 1, COMPONENTS, device=output.device)[:, None, None]
        return logits.log_softmax(2), centres + start, (log_scales + START).clamp(min=FLOOR)

    def _levels(self, output: Tensor) -> Tensor:
        """Logits of the levels, (batch, channels, 256, height, width)."""
        return output.unflatten(1, (-1, losses.LEVELS))

    def _location(self, output: Tensor) -> Tensor:
        if self.kind == "logistic":
            return output + 0.5
        return output.sigmoid() if self.spec.kind == "images" else output

    def nll(self, output: Float[Tensor, "batch ..."], x: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        """-log p(x | z) in nats per example (1/2 ||x - mean||^2 for squared_error)."""
        if self.spec.columns:
            return self._table_nll(output, x)
        match self.kind:
            case "bernoulli":
                return losses.bernoulli_nll(output, x)
            case "logistic":
                return losses.discretised_logistic_nll(self._location(output), self._floored, x).flatten(1).sum(1)
            case "logistic_mixture":
                log_weights, centres, log_scales = self._mixture(output)
                each = log_weights - losses.discretised_logistic_nll(centres, log_scales, x[:, :, None])
                return -each.logsumexp(2).flatten(1).sum(1)
            case "categorical":
                levels = (x * (losses.LEVELS - 1)).round().long()[:, :, None]
                return -self._levels(output).log_softmax(2).gather(2, levels).flatten(1).sum(1)
            case "gaussian":
                return losses.gaussian_nll(self._location(output), self._floored, x)
            case "squared_error":
                return losses.squared_error(self._location(output), x)

    def nll_of_pairs(self, output: Float[Tensor, "codes ..."], x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch codes"]:
        """-log p(x | z) of every example under every output, in nats."""
        if self.kind == "bernoulli":
            logits = output.flatten(1)
            return F.softplus(logits).sum(1) - x.flatten(1) @ logits.T
        return torch.stack([self.nll(output, one.expand(len(output), *one.shape)) for one in x])

    def _table_nll(self, output: Tensor, x: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        if numbers := self._numbers():
            indicators = self._indicators()
            # An empty number stands at 0 and says nothing: feature 0 of `present` is a column of ones.
            present = torch.cat((torch.ones_like(x[:, :1]), 1 - x), 1)[:, [indicators.get(i, -1) + 1 for i in numbers]]
            mean, found = output[:, numbers], x[:, numbers]
            if self.kind == "gaussian":
                total = total + losses.gaussian_nll(mean, self._floored, found, mask=present)
            else:
                total = total + losses.squared_error(mean, found, mask=present)
        for column in self.spec.columns:
            part = slice(column.start, column.stop)
            if column.kind == "category":
                total = total + losses.categorical_nll(output[:, part], x[:, part])
        if flags := [column.start for column in self.spec.columns if column.kind == "missing"]:
            total = total + losses.bernoulli_nll(output[:, flags], x[:, flags])
        return total

    def mean(self, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The expected x of an output; in a table the likeliest category and indicator, so that each row is a valid one."""
        if self.spec.columns:
            return self._table(output, None)
        if self.kind == "bernoulli":
            return output.sigmoid()
        if self.kind == "logistic":
            return _cut_off_mean(self._location(output), self._floored)
        if self.kind == "logistic_mixture":
            log_weights, centres, log_scales = self._mixture(output)
            return (log_weights.exp() * _cut_off_mean(centres, log_scales)).sum(2).clamp(0, 1)
        if self.kind == "categorical":
            level = torch.linspace(0, 1, losses.LEVELS, device=output.device)[:, None, None]
            return (self._levels(output).softmax(2) * level).sum(2)
        return self._location(output)

    def show(self, output: Float[Tensor, "batch ..."], noise: Noise, mode: Literal["draw", "mean"] | None) -> Float[Tensor, "batch ..."]:
        """The mean of each output's distribution, or a draw from it. None: the mean of images, a draw of anything else."""
        mode = mode or ("mean" if self.spec.kind == "images" else "draw")
        return self.mean(output) if mode == "mean" else self.draw(output, noise)

    def draw(self, output: Float[Tensor, "batch ..."], noise: Noise) -> Float[Tensor, "batch ..."]:
        """One x of each output's distribution, in the space of `Batch.x`. squared_error, which has none, gives its mean."""
        if self.spec.columns:
            return self._table(output, noise)
        shape = output.shape[1:]
        match self.kind:
            case "bernoulli":
                return (noise.uniform(*shape) < output.sigmoid()).to(output.dtype)
            case "logistic":
                return _drawn_level(self._location(output), self._floored, noise.uniform(*shape))
            case "logistic_mixture":
                log_weights, centres, log_scales = self._mixture(output)
                chosen = _gumbel_argmax(log_weights, noise)
                centre, log_scale = (value.gather(2, chosen).squeeze(2) for value in (centres, log_scales))
                return _drawn_level(centre, log_scale, noise.uniform(*self.spec.shape))
            case "categorical":
                return _gumbel_argmax(self._levels(output), noise).squeeze(2) / (losses.LEVELS - 1)
            case "gaussian":
                x = self._location(output) + self._floored.exp() * noise.normal(*shape)
                return x.clamp(0, 1) if self.spec.kind == "images" else x
            case "squared_error":
                return self._location(output)

    def _table(self, output: Tensor, noise: Noise | None) -> Tensor:
        x = torch.zeros_like(output)
        if numbers := self._numbers():
            x[:, numbers] = output[:, numbers]
            if noise is not None and self.kind == "gaussian":
                x[:, numbers] += self._floored.exp() * noise.normal(len(numbers))
        for column in self.spec.columns:
            part = slice(column.start, column.stop)
            if column.kind == "category":
                weights = output[:, part].softmax(-1)
                chosen = weights.argmax(-1) if noise is None else noise.categorical(weights)
                x[:, part] = F.one_hot(chosen, column.stop - column.start).to(x.dtype)
            elif column.kind == "missing":
                threshold = 0.5 if noise is None else noise.uniform(1)
                x[:, part] = (threshold < output[:, part].sigmoid()).to(x.dtype)
        for number, indicator in self._indicators().items():
            # As the data have it: an empty number stands at its mean, 0.
            x[:, number] *= 1 - x[:, indicator]
        return x


def _cut_off_mean(centre: Tensor, log_scale: Tensor) -> Tensor:
    """The mean of a logistic variable cut off at 0 and 1: the integral of its survival function."""
    scale = log_scale.exp()
    return (scale * (F.softplus(centre / scale) - F.softplus((centre - 1) / scale))).clamp(0, 1)


def _drawn_level(centre: Tensor, log_scale: Tensor, uniform: Tensor) -> Tensor:
    """The level at which a logistic variable falls, by inverting its distribution function."""
    levels = losses.LEVELS - 1
    return (centre + log_scale.exp() * uniform.clamp(1e-6, 1 - 1e-6).logit()).mul(levels).round().clamp(0, levels) / levels


def _gumbel_argmax(log_weights: Tensor, noise: Noise) -> Tensor:
    """A draw of each categorical variable along dimension 2, which it keeps."""
    uniform = noise.uniform(*log_weights.shape[1:]).clamp(1e-12, 1 - 1e-7)
    return (log_weights - (-uniform.log()).log()).argmax(2, keepdim=True)
