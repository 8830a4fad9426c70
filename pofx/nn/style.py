"""A style-based generator: a vector of style says how each layer weighs its features, and a picture for each layer is drawn beside it."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.conv import widths
from pofx.nn.growing import MOST, EqualLinear, enlarge, pixel_norm, sizes

RATE = 0.01
"""Learning rate of the mapping network, in that of the others."""


class Mapping(Network):
    """Codes to styles: dense layers with leaky ReLUs after a normalisation of the code.

    Arguments:
        latent: length of a code. style: of a style. depth: layers.

    References:
        A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), https://arxiv.org/abs/1812.04948
    """

    def __init__(self, latent: int, style: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(latent if i == 0 else style, style, rate=RATE) for i in range(depth))

    def compute(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch style"]:
        """(batch, latent) to (batch, style)."""
        h = pixel_norm(z)
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
        return h


class StyledConv(nn.Module):
    """A convolution that keeps the size, whose inputs a style scales, and whose outputs are normalised as if their inputs were
    independent and of variance 1 (demodulation).

    Scaling what goes in and what comes out of one convolution of the whole batch is the same as a convolution of its own for each
    example, and one matrix product instead of many small ones.

    Arguments:
        demodulate: whether outputs are normalised.

    References:
        Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), section 2.2, https://arxiv.org/abs/1912.04958
    """

    def __init__(self, inputs: int, outputs: int, style: int, *, kernel: int = 3, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.demodulate = 1 / math.sqrt(inputs * kernel**2), demodulate
        self.style = EqualLinear(style, inputs, gain=1.0)
        nn.init.ones_(self.style.bias)

    def forward(self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch style"]) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        style, weight = self.style(w), self.weight * self.scale
        y = F.conv2d(x * style[:, :, None, None].to(x.dtype), weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            power = style.float().square() @ weight.float().square().sum((2, 3)).T
            y = y * (power + 1e-8).rsqrt()[:, :, None, None].to(y.dtype)
        return y + self.bias.to(y.dtype)[:, None, None]


class StyledLayer(nn.Module):
    """A styled convolution, a drawn picture weighed by one learned number, and a leaky ReLU that keeps the scale."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.conv = StyledConv(inputs, outputs, style)
        self.noise = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Float[Tensor, "batch style"], noise: Float[Tensor, "batch 1 height width"]) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        y = self.conv(x, w)
        return math.sqrt(2) * F.leaky_relu(y + (self.noise * noise).to(y.dtype), 0.2)


class StyleGenerator(Network):
    """Styles, one a layer, to images: from a learned constant of the coarsest size through two layers a size, whose images are added up.

    Arguments:
        style: length of a style.
        shape: (channels, height, width) of an image.
        channels: at the full size; they double with each halving, up to 256.

    Attributes:
        layers: of styles. places: (height, width) of the drawn picture of each.

    References:
        Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
    """

    def __init__(self, style: int, shape: Sequence[int], *, channels: int) -> None:
        super().__init__()
        self.sizes = sizes(shape)
        wide = widths(len(self.sizes), channels, most=MOST)[::-1]
        self.constant = nn.Parameter(torch.randn(1, wide[0], *self.sizes[0]))
        pairs = [(wide[0], wide[0])]
        for inputs, outputs in itertools.pairwise(wide):
            pairs += [(inputs, outputs), (outputs, outputs)]
        self.blocks = nn.ModuleList(StyledLayer(inputs, outputs, style) for inputs, outputs in pairs)
        self.to_image = nn.ModuleList(StyledConv(width, shape[0], style, kernel=1, demodulate=False) for width in wide)
        self.layers = len(pairs)
        self.places = [self.sizes[(i + 1) // 2] for i in range(self.layers)]

    def compute(self, w: Float[Tensor, "batch layers style"], noise: Float[Tensor, "batch numbers"]) -> Float[Tensor, "batch channels h w"]:
        """Images, unbounded.

        Arguments:
            noise: the pictures of all layers, one behind the other.
        """
        pictures = [
            part.unflatten(1, (1, *size)) for part, size in zip(noise.split([h * w for h, w in self.places], 1), self.places, strict=True)
        ]
        h = self.blocks[0](self.constant.expand(len(w), -1, -1, -1), w[:, 0], pictures[0])
        image = self.to_image[0](h, w[:, 1 if self.layers > 1 else 0])
        for i, size in enumerate(self.sizes[1:], 1):
            first = 2 * i - 1
            h = self.blocks[first](enlarge(h, size), w[:, first], pictures[first])
            h = self.blocks[first + 1](h, w[:, first + 1], pictures[first + 1])
            image = enlarge(image, size) + self.to_image[i](h, w[:, first + 1])
        return image

    @property
    def numbers(self) -> int:
        """Of the pictures of all layers together."""
        return sum(height * width for height, width in self.places)
