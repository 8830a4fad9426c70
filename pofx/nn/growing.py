"""Networks that grow: a generator and a discriminator of images that begin small and take in one size after the other.

A size has a `stage`, counted from the coarsest, and a share `alpha` with which its newest layers count. Layers of sizes that are yet
to come take no part in the computation, so that they have no gradients.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from pofx.core import Network
from pofx.nn.conv import pyramid, widths
from pofx.nn.minibatch import MinibatchStd

SMALLEST = 4
"""No side of the coarsest size exceeds it."""
MOST = 256
"""Channels at most."""


def sizes(shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of each stage, the coarsest first; 32 x 32 has 4, 8, 16, 32, and 112 x 92 has 4 x 3, 7 x 6, ..., 112 x 92."""
    return pyramid(*shape[1:], smallest=SMALLEST)[::-1]


def halve(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels new_height new_width"]:
    """Means of blocks of 2 x 2 pixels, at an odd edge of what there is."""
    return _Halving.apply(x)


class _Halving(Function):
    """Pooling whose gradients are an enlargement: PyTorch's own are slow, and have second derivatives of zeros that are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[2:]
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        rows, columns = ((side - 2 * torch.arange(-(-side // 2), device=gradient.device)).clamp(max=2) for side in ctx.size)
        return enlarge(gradient / (rows[:, None] * columns), ctx.size)


def enlarge(x: Float[Tensor, "batch channels height width"], size: tuple[int, int]) -> Float[Tensor, "batch channels new_height new_width"]:
    """Every pixel repeated, to an exact size; of the next stage, `halve` undoes it."""
    return F.interpolate(x, size=size, mode="nearest")


def pixel_norm(x: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch features ..."]:
    """x over the root of the mean square of its features, at each place.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 4.2,
        https://arxiv.org/abs/1710.10196
    """
    return F.rms_norm(x.movedim(1, -1), x.shape[1:2], eps=1e-8).movedim(-1, 1)


class EqualLinear(nn.Linear):
    """A linear layer whose weights start at N(0, 1) and are scaled by gain / sqrt(inputs) each time they are used, so that an optimizer
    with normalised steps moves all layers at one rate.

    Arguments:
        rate: of this layer in that of the others; its weights start larger and are scaled down by as much.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 4.1,
        https://arxiv.org/abs/1710.10196
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = math.sqrt(2), rate: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Conv2d):
    """The same for a convolution that keeps the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, gain: float = math.sqrt(2)) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.scale = gain / math.sqrt(inputs * kernel**2)
        nn.init.normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class GrowingGenerator(Network):
    """Codes to images of the size of a stage, unbounded.

    Arguments:
        latent: length of a code.
        shape: (channels, height, width) of an image at the last stage.
        channels: at the last stage; they double with each halving, up to 256.
    """

    def __init__(self, latent: int, shape: Sequence[int], *, channels: int) -> None:
        super().__init__()
        self.sizes = sizes(shape)
        wide = widths(len(self.sizes), channels, most=MOST)[::-1]
        self.code = (*self.sizes[0], wide[0])
        self.stem = EqualLinear(latent, math.prod(self.code), gain=math.sqrt(2) / 4)
        self.blocks = nn.ModuleList([nn.ModuleList([EqualConv(wide[0], wide[0])])])
        for inputs, outputs in itertools.pairwise(wide):
            self.blocks.append(nn.ModuleList([EqualConv(inputs, outputs), EqualConv(outputs, outputs)]))
        self.to_image = nn.ModuleList(EqualConv(width, shape[0], 1, gain=1.0) for width in wide)

    def compute(self, z: Float[Tensor, "batch latent"], stage: int, alpha: float) -> Float[Tensor, "batch channels height width"]:
        """The images of a stage, faded in over those of the stage before by alpha."""
        h = pixel_norm(_active(self.stem(pixel_norm(z)))).unflatten(1, self.code).permute(0, 3, 1, 2)
        before = h
        for i in range(stage + 1):
            before, h = h, h if i == 0 else enlarge(h, self.sizes[i])
            for layer in self.blocks[i]:  # type: ignore[union-attr]
                h = pixel_norm(_active(layer(h)))
        image = self.to_image[stage](h)
        if alpha < 1 and stage > 0:
            image = torch.lerp(enlarge(self.to_image[stage - 1](before), self.sizes[stage]), image, alpha)
        return image


class GrowingDiscriminator(Network):
    """Images of the size of a stage to one number each.

    Arguments:
        shape: (channels, height, width) of an image at the last stage.
        channels: at the last stage; they double with each halving, up to 256.
        minibatch_std: group of the minibatch standard deviation at the coarsest size; 0 for none.
    """

    def __init__(self, shape: Sequence[int], *, channels: int, minibatch_std: int) -> None:
        super().__init__()
        self.sizes = sizes(shape)
        wide = widths(len(self.sizes), channels, most=MOST)[::-1]
        self.from_image = nn.ModuleList(EqualConv(shape[0], width, 1) for width in wide)
        self.blocks = nn.ModuleList([nn.ModuleList([EqualConv(wide[0] + (minibatch_std > 0), wide[0])])])
        for outputs, inputs in itertools.pairwise(wide):
            self.blocks.append(nn.ModuleList([EqualConv(inputs, inputs), EqualConv(inputs, outputs)]))
        self.spread = MinibatchStd(minibatch_std) if minibatch_std else nn.Identity()
        self.head = nn.Sequential(
            EqualLinear(wide[0] * math.prod(self.sizes[0]), wide[0]), nn.LeakyReLU(0.2), EqualLinear(wide[0], 1, gain=1.0)
        )

    def compute(self, x: Float[Tensor, "batch channels height width"], stage: int, alpha: float) -> Float[Tensor, "batch 1"]:
        """D(x) of images of a stage, whose newest layers count by alpha."""
        # The strides of one channel do not tell its order in memory, and what is computed of it would lie in the slow one.
        x = x[:, 0].unsqueeze(-1).movedim(-1, 1) if x.shape[1] == 1 else x
        h = _active(self.from_image[stage](x))
        for i in range(stage, -1, -1):
            if i == 0:
                h = self.spread(h)
            for layer in self.blocks[i]:  # type: ignore[union-attr]
                h = _active(layer(h))
            if i > 0:
                h = halve(h)
                if i == stage and alpha < 1:
                    h = torch.lerp(_active(self.from_image[i - 1](halve(x))).to(h.dtype), h, alpha)
        return self.head(h.permute(0, 2, 3, 1).flatten(1))
