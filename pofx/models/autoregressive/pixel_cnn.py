"""PixelCNN: each pixel is predicted from those above it and to its left, by gated convolutions; likelihoods are exact.

    log p(x) = sum_i sum_c log p(x_ic | x_i1, ..., x_i,c-1, x_1, ..., x_i-1)        pixels i in raster order, channels c in turn

Training sees all pixels of an image at once. Drawing goes pixel by pixel and computes each feature once: a memory of a few rows
for each layer holds what the next pixels ask for.
"""

import dataclasses
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pofx import core
from pofx.core import (
    Batch,
    Budget,
    Completes,
    DataSpec,
    Likelihood,
    Loss,
    Model,
    Noise,
    Optimizer,
    Positive,
    Recipe,
    Samples,
    Scores,
    UsageError,
)
from pofx.nn import labels
from pofx.nn.gated import GatedPixels
from pofx.nn.levels import Levels, LogisticMixture, Softmax


class PixelCNN(Model, Samples, Scores, Completes):
    """Two stacks of gated convolutions, of the rows above and of the row itself, and a distribution over a pixel's levels.

    The loss is the one term `nll`, -log p(x) in nats per example; its metric `bits_per_dimension` is that over the numbers of an
    image. With labels, of whatever kind, it is p(x|y).

    Raises `UsageError` for images without levels.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), https://arxiv.org/abs/1606.05328
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications (Salimans et
        al., 2017), https://arxiv.org/abs/1701.05517
        Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017), https://arxiv.org/abs/1704.06001
    """

    kinds = frozenset({"images"})
    in_order = True

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Configuration of the PixelCNN."""

        width: Positive = 32
        """Features of a pixel in each of the two stacks."""
        depth: Positive = 8
        """Blocks of gated convolutions."""
        kernel: Annotated[int, core.Range(3)] = 5
        """Side of a block's window, of which the half above and to the left is seen; odd."""
        first_kernel: Annotated[int, core.Range(3)] = 7
        """The same of the first layer."""
        likelihood: Literal["categorical", "logistic_mixture"] = "categorical"
        """categorical: a softmax over the levels of a pixel, of binary images a coin; logistic_mixture: a mixture of rounded logistic
        variables, for 8-bit images."""
        components: Positive = 10
        """Logistic variables of the mixture."""
        dropout: Annotated[float, core.Range(0, 0.9)] = 0.0
        """Share of each block's features that training silences."""
        conditional: bool = False
        """Whether to learn p(x|label); needs data with labels: classes, attributes or values."""
        optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
        """How the weights move."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("kernel", "first_kernel"):
                if getattr(self, name) % 2 == 0:
                    raise UsageError(f"{name.replace('_', '-')} must be odd, not {getattr(self, name)}: a window has a middle")

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if spec.bits is None:
            raise UsageError("a pixel_cnn gives probabilities to levels, and these images have none: give --data.bits 8 or 1")
        if config.likelihood == "logistic_mixture" and spec.bits != 8:
            raise UsageError("logistic_mixture is for 8-bit images, and these are binary: choose categorical")
        self.condition = labels.Condition(spec, "pixel_cnn") if config.conditional else None
        channels = spec.shape[0]
        head: Levels
        if config.likelihood == "categorical":
            head = Softmax(channels, config.width, 2**spec.bits)
        else:
            head = LogisticMixture(channels, config.width, config.components)
        self.network = GatedPixels(
            spec.shape,
            head,
            width=config.width,
            depth=config.depth,
            kernel=config.kernel,
            first=config.first_kernel,
            dropout=config.dropout,
            context=0 if self.condition is None else self.condition.width,
        )

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """A deep network for many images, wider where there is time for it; a small one with some dropout for few images; smaller
        batches of larger images."""
        optimizer = Optimizer(name="muon", lr=2e-3, matrix_lr=2e-2, betas=(0.9, 0.95), momentum=0.95, warmup=0.02, decay="linear")
        batch_size = max(4, min(32, 2**15 // math.prod(spec.shape[1:])))
        if 0 < spec.size < 5000:
            config = cls.Config(depth=4, dropout=0.1, optimizer=optimizer)
            return Recipe(config=config, batch_size=batch_size, budget=budget or Budget(steps=1500), ema=0.998)
        long = budget is not None and ((budget.minutes or 0) >= 30 or (budget.epochs or 0) >= 8)
        config = cls.Config(width=64 if long else 32, optimizer=optimizer)
        return Recipe(config=config, batch_size=batch_size, budget=budget or Budget(epochs=4), ema=0.998)

    # ----------------------------------------------------------------------------------------------------- training

    def _nll(self, x: Tensor, label: Tensor | None) -> Float[Tensor, " batch"]:
        """-log p(x|label)."""
        return self.network.head.nll(self.network(x, self._context(label, x)), x.permute(0, 2, 3, 1))

    def _context(self, label: Tensor | None, like: Tensor) -> Float[Tensor, "batch context"] | None:
        return None if self.condition is None else self.condition.vector(label, like)

    def loss(self, batch: Batch) -> Loss:
        """The term `nll`; in training mode it also counts the labels."""
        nll = self._nll(batch.x, labels.shown(self.condition, batch.label, training=self.training)).mean()
        return Loss({"nll": nll}, metrics={"bits_per_dimension": nll.detach() / (math.log(2) * math.prod(self.spec.shape))})

    # ------------------------------------------------------------------------------------------------- capabilities

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, label: Tensor | None = None) -> Likelihood:
        """Exact log p(x) in nats; a conditional model without labels gives log sum_y p(y) p(x|y) over the training marginal, a lower
        bound in the mean where this has so many different rows of attributes or values that some of them stand for all."""
        labels.check(self.condition, label, len(x), "pixel_cnn")
        nats, kind = labels.exact_log_prob(self.condition, self._nll, x, label)
        return Likelihood(nats, kind, "binary" if self.spec.bits == 1 else "8-bit")

    @torch.no_grad()
    def sample(
        self, n: int, *, noise: Noise, label: Tensor | None = None, temperature: float = 1.0
    ) -> Float[Tensor, "n channels height width"]:
        """n new images under the labels `label`, or under labels drawn from the training marginal.

        Arguments:
            temperature: divides logits, and multiplies the scales of a mixture; below 1 prefers likely levels.
        """
        labels.check(self.condition, label, n, "pixel_cnn", missing=False)
        if self.condition is not None and label is None:
            label = self.condition.draw(noise)
        x = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.network.place.dtype)
        return self._fill(x, torch.zeros_like(x, dtype=torch.bool), noise, label, temperature)

    @torch.no_grad()
    def complete(
        self,
        x: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch channels height width"],
        *,
        noise: Noise,
        label: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, "batch channels height width"]:
        """x with the elements where `mask` is False drawn anew, in raster order, each given all before it, kept or drawn.

        What comes behind a pixel has no influence on it: the lower half follows from the upper one, and an upper half that is
        filled does not look at the lower one. Without labels a conditional model draws from p(x).
        """
        labels.check(self.condition, label, len(x), "pixel_cnn")
        return self._fill(x.masked_fill(~mask, 0), mask, noise, label, temperature)

    def _fill(self, x: Tensor, keep: Tensor, noise: Noise, label: Tensor | None, temperature: float) -> Tensor:
        core.Range(0, open=True).check("temperature", temperature)
        channels, height, width = self.spec.shape
        raster = self.network.raster(len(x), self._context(label, x))
        # Drawn at once, whatever is kept: images do not depend on one another.
        uniform = noise.uniform(height, width, channels, 2)
        missing = (~keep).any(0).any(0).cpu()
        for i in range(height):
            pixel = raster.row(i, x[:, :, i - 1] if i else None)
            wanted = missing[i].nonzero().flatten().tolist()
            for j in range(wanted[-1] + 1 if wanted else 0):
                features = pixel(j, x[:, :, i, j - 1] if j else None)
                if missing[i, j]:
                    x[:, :, i, j] = self.network.head.draw(features, x[:, :, i, j], keep[:, :, i, j], uniform[:, i, j], temperature)
        return x
