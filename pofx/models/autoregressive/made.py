"""MADE: a dense network whose masks let each variable be predicted from those before it alone; likelihoods are exact.

    log p(x) = sum_v log p(x_v | x_1, ..., x_v-1)        pixels in raster order, features, columns of a table in their order

A pixel of a binary image is a coin, of an 8-bit one a mixture of rounded logistic variables, a number a mixture of Gaussians, a
category a softmax. Training sees all variables at once; drawing computes each hidden unit once, when what it depends on is there.
"""

import dataclasses
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pofx import core
from pofx.core import Batch, Budget, Completes, DataSpec, Likelihood, Loss, Model, Noise, Optimizer, Positive, Recipe, Samples, Scores
from pofx.nn import labels
from pofx.nn.masked import Masked
from pofx.nn.variables import Variables

DIRECT = 2048
"""Pixels above which the map from each to each later one would have more weights than the rest of the network, and is left out."""


class MADE(Model, Samples, Scores, Completes):
    """A masked dense network from variables in their order to a distribution of each, given those before it.

    The loss is the one term `nll`, -log p(x) in nats per example, of images with the metric `bits_per_dimension`. With labels, of
    whatever kind, it is p(x|y).

    Raises `UsageError` for images without levels.

    References:
        MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
        RNADE: The real-valued neural autoregressive density-estimator (Uria et al., 2013), https://arxiv.org/abs/1306.0186
    """

    kinds = frozenset({"images", "vectors"})
    in_order = True

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the MADE."""

        hidden: tuple[Positive, ...] = (1024, 1024)
        """Widths of the hidden layers; equal neighbours have a residual path."""
        direct: bool = True
        """Whether each variable also sees the earlier ones directly, by one linear map."""
        components: Positive = 5
        """Of the mixture that a number, or a pixel of 8 bits, is."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of the last hidden units that training silences."""
        conditional: bool = False
        """Whether to learn p(x|label); needs data with labels: classes, attributes or values."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if not config.hidden:
            raise core.UsageError("a made has at least one hidden layer: give --model.hidden a width")
        self.condition = labels.Condition(spec, "made") if config.conditional else None
        self.variables = Variables(spec, config.components)
        self.network = Masked(
            self.variables.input_variables,
            self.variables.output_variables,
            config.hidden,
            direct=config.direct,
            context=0 if self.condition is None else self.condition.width,
            dropout=config.dropout,
        )

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Wide layers for many images, narrow ones for vectors and for few examples, which get some dropout as well."""
        optimizer = Optimizer(lr=1e-3, warmup=0.02, decay="linear")
        few, numbers = 0 < spec.size < 5000, math.prod(spec.shape)
        if spec.kind != "images":
            config = cls.Config(hidden=(256, 256), dropout=0.1 if few else 0.0, optimizer=optimizer)
            return Recipe(config=config, batch_size=128, budget=budget or Budget(epochs=100 if few else 30), ema=0.998)
        # Five numbers a pixel, directly from each pixel, would be more weights than they are worth; so would the many of a large image.
        config = cls.Config(direct=spec.bits == 1 and numbers <= DIRECT, components=3, optimizer=optimizer)
        if few or numbers > 1024:
            config = dataclasses.replace(config, hidden=(256, 256), dropout=0.2 if few else 0.0)
        steps = Budget(steps=3000) if few else Budget(epochs=30)
        return Recipe(config=config, batch_size=64 if few else 256, budget=budget or steps, ema=0.998)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a large image leaves out."""
        numbers = math.prod(self.spec.shape)
        if self.spec.bits != 1 or self.config.direct or numbers <= DIRECT:
            return ()
        return (f"no pixel sees the earlier ones directly, which would take {numbers**2:,} weights: --model.direct true has it",)

    # ----------------------------------------------------------------------------------------------------- training

    def _inputs(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Features in the order of the variables, pixels in [-1, 1]."""
        x = x[:, self.variables.order]
        return 2 * x - 1 if self.spec.kind == "images" else x

    def _context(self, label: Tensor | None, like: Tensor) -> Float[Tensor, "batch context"] | None:
        return None if self.condition is None else self.condition.vector(label, like)

    def _nll(self, x: Tensor, label: Tensor | None) -> Float[Tensor, " batch"]:
        """-log p(x|label)."""
        x = x.flatten(1)
        return self.variables.nll(self.network(self._inputs(x), self._context(label, x)), x)

    def loss(self, batch: Batch) -> Loss:
        """The term `nll`; in training mode it also counts the labels."""
        nll = self._nll(batch.x, labels.shown(self.condition, batch.label, training=self.training)).mean()
        bits = {"bits_per_dimension": nll.detach() / (math.log(2) * math.prod(self.spec.shape))} if self.spec.kind == "images" else {}
        return Loss({"nll": nll}, metrics=bits)

    # ------------------------------------------------------------------------------------------------- capabilities

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None) -> Likelihood:
        """Exact log p(x) in the model's units; a conditional model without labels gives log sum_y p(y) p(x|y) over the training
        marginal, a lower bound in the mean where some of its many different rows stand for all."""
        labels.check(self.condition, label, len(x), "made")
        nats, kind = labels.exact_log_prob(self.condition, self._nll, x, label, part=512)
        space: dict[int | None, Literal["binary", "8-bit", "density"]] = {1: "binary", 8: "8-bit", None: "density"}
        return Likelihood(nats, kind, space[self.spec.bits])

    @torch.no_grad()
    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0) -> Float[Tensor, "n ..."]:
        """n new examples under the labels `label`, or under labels drawn from the training marginal.

        Arguments:
            temperature: divides logits, and multiplies the scales of a mixture; below 1 prefers likely values.
        """
        labels.check(self.condition, label, n, "made", missing=False)
        if self.condition is not None and label is None:
            label = self.condition.draw(noise)
        x = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.network.head.weight.dtype)
        return self._fill(x, torch.zeros_like(x, dtype=torch.bool), noise, label, temperature)

    @torch.no_grad()
    def complete(
        self,
        x: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch ..."],
        *,
        noise: Noise,
        label: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, "batch ..."]:
        """x with the elements where `mask` is False drawn anew, variable after variable, each given all before it, kept or drawn.

        What comes behind a variable has no influence on it. Without labels a conditional model draws from p(x).
        """
        labels.check(self.condition, label, len(x), "made")
        return self._fill(x.masked_fill(~mask, 0), mask, noise, label, temperature)

    def _fill(self, x: Tensor, keep: Tensor, noise: Noise, label: Tensor | None, temperature: float) -> Tensor:
        core.Range(0, open=True).check("temperature", temperature)
        shape, images = x.shape, self.spec.kind == "images"
        x, keep = x.flatten(1).clone(), keep.flatten(1)
        inputs = x.new_zeros(x.shape)
        read = self.network.reader(inputs, self._context(label, x))
        uniform, missing = noise.uniform(len(self.variables.variables), 2), (~keep).any(0).cpu()
        done = 0
        for number, variable in enumerate(self.variables.variables):
            about, part = read(number + 1), slice(variable.start, variable.stop)
            if missing[part].any():
                drawn = self.variables.draw(variable, about, x, uniform[:, number], temperature)
                x[:, part] = torch.where(keep[:, part], x[:, part], drawn)
            stop = done + variable.stop - variable.start
            inputs[:, done:stop] = 2 * x[:, part] - 1 if images else x[:, part]
            done = stop
        return x.view(shape)
