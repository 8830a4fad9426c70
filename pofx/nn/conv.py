"""Convolutional networks for images of any height and width: down by ceil-halving, up again to the exact sizes.

Channels are multiples of 32 where speed counts, and tensors between layers stay in channels-last memory: the code at
the end of an encoder is flattened as (height, width, channels), which is then no copy. No layer but `MinibatchStd` looks at more
than one example of a batch, so that a discriminator's penalty on one example says nothing about its neighbours.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.attention import ImageAttention
from pofx.nn.dropout import Dropout
from pofx.nn.minibatch import MinibatchStd
from pofx.nn.mlp import Activation, nonlinearity

LARGE = 2**15
"""Numbers in an image from which on a dense layer on its pixels would have more weights than it can learn."""


def pyramid(height: int, width: int, *, smallest: int = 7) -> tuple[tuple[int, int], ...]:
    """Image sizes from (height, width) down, each half of the last rounded up, until no side exceeds `smallest`.

    There is at least one halving: 28 x 28 gives 28, 14, 7; 112 x 92 gives 112 x 92, 56 x 46, 28 x 23, 14 x 12, 7 x 6.
    """
    sizes = [(height, width)]
    while len(sizes) == 1 or max(sizes[-1]) > smallest:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return tuple(sizes)


def widths(stages: int, channels: int, *, most: int = 256) -> tuple[int, ...]:
    """Channels after each of `stages` halvings: `channels`, twice that, ..., but no more than `most` (or `channels`)."""
    return tuple(min(channels * 2**stage, max(most, channels)) for stage in range(stages))


class _Upsample(nn.Module):
    """Nearest-neighbour up-sampling to an exact size, followed by `layer`."""

    def __init__(self, size: tuple[int, int], layer: nn.Module) -> None:
        super().__init__()
        self.size, self.layer = size, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.interpolate(x, size=self.size, mode="nearest"))


class ResidualBlock(nn.Module):
    """x + f(x) / 10, f two 3x3 convolutions with a non-linearity between them; it starts as the identity.

    Arguments:
        channels: of x and of f(x).
        activation: the non-linearity.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016), https://arxiv.org/abs/1512.03385
        Fixup Initialization: Residual Learning Without Normalization (Zhang et al., 2019), https://arxiv.org/abs/1901.09321
        Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning (Szegedy et al., 2016),
        https://arxiv.org/abs/1602.07261
    """

    SHARE = 0.1
    """What is added of f(x): steps of Adam that suit other layers let whole branches grow from zero at once, and a game diverges."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nonlinearity(activation), nn.Conv2d(channels, channels, 3, padding=1)
        )
        # Without normalisation a sum of branches would grow with depth; branches that start at zero do not.
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """x and what the branch adds to it."""
        return x + self.SHARE * self.layers(x)


class ConvEncoder(Network):
    """Images to vectors: a 3x3 convolution of stride 2 for each halving of `pyramid`, then one linear layer.

    Arguments:
        shape: (channels, height, width) of an image.
        out_features: length of the output.
        channels: channels after the first halving; they double with each further one, up to 256.
        activation: non-linearity after each convolution.
        dropout: share of the features before the linear layer that training silences.
        context: length of a vector (a label, say) that is joined to the features before the linear layer; 0 for none.
        blocks: residual blocks after each halving.
        attention: whether the features of the last halving but one (of the only one) attend to each other.
        minibatch_std: group of the minibatch standard deviation that is joined to what the last halving sees; 0 for none.
        dense: units of a layer between the features and the linear one; 0 for none. Without it the output is a sum over places of what
            is seen in each, and says nothing of how they fit together.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al.,
        2015), https://arxiv.org/abs/1511.06434
    """

    def __init__(
        self,
        shape: Sequence[int],
        out_features: int,
        *,
        channels: int = 32,
        activation: Activation = "silu",
        dropout: float = 0.0,
        context: int = 0,
        blocks: int = 0,
        attention: bool = False,
        minibatch_std: int = 0,
        dense: int = 0,
    ) -> None:
        super().__init__()
        width, *size = shape
        sizes = pyramid(*size)
        halvings = len(sizes) - 1
        self.features = nn.Sequential()
        for number, wider in enumerate(widths(halvings, channels), 1):
            if minibatch_std and number == halvings:
                self.features.append(MinibatchStd(minibatch_std))
                width += 1
            self.features.extend((nn.Conv2d(width, wider, 3, stride=2, padding=1), nonlinearity(activation)))
            self.features.extend(ResidualBlock(wider, activation) for _ in range(blocks))
            if attention and number == max(1, halvings - 1):
                self.features.append(ImageAttention(wider))
            width = wider
        self.dropout = Dropout(dropout)
        flat = width * sizes[-1][0] * sizes[-1][1]
        self.dense = nn.Sequential(nn.Linear(flat, dense), nonlinearity(activation)) if dense else nn.Identity()
        self.head = nn.Linear((dense or flat) + context, out_features)

    def compute(
        self, x: Float[Tensor, "batch channels height width"], context: Float[Tensor, "batch context"] | None = None
    ) -> Float[Tensor, "batch out_features"]:
        """(batch, channels, height, width), and (batch, context) where there is one, to (batch, out_features)."""
        features = self.dense(self.dropout(self.features(x).permute(0, 2, 3, 1).flatten(1)))
        # Under autocast the features are bfloat16, and so must be what joins them.
        return self.head(features if context is None else torch.cat((features, context.to(features.dtype)), 1))


class ConvDecoder(Network):
    """Vectors to images, the mirror of `ConvEncoder`: one linear layer, then up-sampling and a 3x3 convolution for each doubling.

    Up-sampling before a convolution leaves none of the checkerboards of transposed convolutions.

    Arguments:
        in_features: length of the input.
        shape: (channels, height, width) of the output, which is unbounded (logits, means).
        channels: channels at the full size; they double with each halving, up to 256.
        activation: non-linearity between the layers.
        blocks: residual blocks at each size but the full one.
        attention: whether the features after the first doubling (before the only one) attend to each other.
        dense: units of a layer before all others; 0 for none. Without it what stands in one place is chosen apart from all others.

    References:
        Deconvolution and Checkerboard Artifacts (Odena et al., 2016), https://distill.pub/2016/deconv-checkerboard
    """

    def __init__(
        self,
        in_features: int,
        shape: Sequence[int],
        *,
        channels: int = 32,
        activation: Activation = "silu",
        blocks: int = 0,
        attention: bool = False,
        dense: int = 0,
    ) -> None:
        super().__init__()
        out_channels, *size = shape
        sizes = pyramid(*size)[::-1]
        per_stage = widths(len(sizes) - 1, channels)[::-1]
        self.code = (*sizes[0], per_stage[0])
        self.stem = nn.Sequential()
        for inputs, outputs in itertools.pairwise((in_features, *([dense] if dense else []), math.prod(self.code))):
            self.stem.extend((nn.Linear(inputs, outputs), nonlinearity(activation)))
        self.layers = nn.Sequential()
        for number, (finer, width, narrower) in enumerate(zip(sizes[1:], per_stage, (*per_stage[1:], channels), strict=True)):
            self.layers.extend(ResidualBlock(width, activation) for _ in range(blocks))
            if attention and number == min(1, len(per_stage) - 1):
                self.layers.append(ImageAttention(width))
            self.layers.extend((_Upsample(finer, nn.Conv2d(width, narrower, 3, padding=1)), nonlinearity(activation)))
        self.layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))

    def compute(self, z: Float[Tensor, "batch in_features"]) -> Float[Tensor, "batch channels height width"]:
        """(batch, in_features) to (batch, channels, height, width)."""
        return self.layers(self.stem(z).unflatten(1, self.code).permute(0, 3, 1, 2))


class PoolingEncoder(Network):
    """The lecture's convolutional encoder: two 3x3 convolutions, each followed by a 2x2 max-pooling.

    28 x 28 becomes a code of `channels` x 7 x 7, flattened in that order.

    Arguments:
        shape: (channels, height, width) of an image.
        channels: of both convolutions.
        activation: non-linearity after each pooling.
        last: whether the code, too, has passed through it.
        dropout: share of the code that training silences.

    References:
        Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction (Masci et al., 2011),
        https://doi.org/10.1007/978-3-642-21735-7_7
    """

    def __init__(
        self, shape: Sequence[int], *, channels: int = 32, activation: Activation = "relu", last: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.code = code_shape(shape, channels)
        self.layers = nn.Sequential(
            # Pooling first: the largest of the rectified is the rectified largest, on a quarter of the numbers.
            nn.Conv2d(shape[0], channels, 3, padding=1),
            nn.MaxPool2d(2, ceil_mode=True),
            nonlinearity(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.MaxPool2d(2, ceil_mode=True),
        )
        if last:
            self.layers.append(nonlinearity(activation))
        self.dropout = Dropout(dropout)

    def compute(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch code"]:
        """(batch, channels, height, width) to (batch, code channels x code height x code width)."""
        return self.dropout(self.layers(x).flatten(1))


class UpsamplingDecoder(Network):
    """The lecture's convolutional decoder, the mirror of `PoolingEncoder`: 3x3 convolutions, each followed by up-sampling.

    Arguments:
        shape: (channels, height, width) of the output, which is unbounded (logits, means).
        channels: of the convolutions and of the code.
        activation: non-linearity between the convolutions.
    """

    def __init__(self, shape: Sequence[int], *, channels: int = 32, activation: Activation = "relu") -> None:
        super().__init__()
        self.code = code_shape(shape, channels)
        full, half, _ = _two_halvings(shape)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nonlinearity(activation),
            _Upsample(half, nn.Conv2d(channels, channels, 3, padding=1)),
            nonlinearity(activation),
            _Upsample(full, nn.Conv2d(channels, shape[0], 3, padding=1)),
        )

    def compute(self, z: Float[Tensor, "batch code"]) -> Float[Tensor, "batch channels height width"]:
        """(batch, code channels x code height x code width) to (batch, channels, height, width)."""
        return self.layers(z.unflatten(1, self.code))


def _two_halvings(shape: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    full = (shape[1], shape[2])
    half = ((full[0] + 1) // 2, (full[1] + 1) // 2)
    return full, half, ((half[0] + 1) // 2, (half[1] + 1) // 2)


def code_shape(shape: Sequence[int], channels: int) -> tuple[int, int, int]:
    """(channels, height, width) of the spatial code between `PoolingEncoder` and `UpsamplingDecoder`."""
    return (channels, *_two_halvings(shape)[2])
