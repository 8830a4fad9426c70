"""A ladder of latent layers: features of x are gathered bottom-up, codes are inferred and data generated top-down.

Its coarsest scale is a vector, the finer ones maps of an image (or, for vectors, vectors again). A dense layer and a
convolution both work on dimension 1, so that one block serves both; maps stay in channels-last memory throughout, in
which a code is flattened as (height, width, channels) without a copy.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Network
from pofx.nn.dropout import Dropout

Size = tuple[int, int] | None
"""(height, width) of a map; None for a vector."""


class Scale(NamedTuple):
    """The latent layers of one resolution.

    size: of the maps; None for vectors.
    width: units or channels of the features.
    layers: latent layers, at least one.
    latents: units or channels of the code of each layer.
    """

    size: Size
    width: int
    layers: int
    latents: int

    @property
    def codes(self) -> int:
        """Numbers in the code of one layer."""
        return self.latents * (1 if self.size is None else math.prod(self.size))


def _mix(size: Size, inputs: int, outputs: int, kernel: int = 1) -> nn.Module:
    """A linear layer for vectors, a convolution that keeps the size for maps."""
    return nn.Linear(inputs, outputs) if size is None else nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def _flatten(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)


def _unflatten(x: Tensor, size: Size, channels: int) -> Tensor:
    return x if size is None else x.unflatten(1, (*size, channels)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """x + f(x), f two layers (3x3 convolutions for maps) after a SiLU each; it starts as the identity.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), https://arxiv.org/abs/1603.05027
    """

    def __init__(self, size: Size, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = _mix(size, width, width, 3)
        self.dropout = Dropout(dropout)
        self.second = _mix(size, width, width, 3)
        nn.init.zeros_(self.second.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """As wide as x."""
        return x + self.second(self.dropout(F.silu(self.first(F.silu(x)))))


class _Down(nn.Module):
    """From a finer scale to the next coarser one."""

    def __init__(self, fine: Scale, coarse: Scale) -> None:
        super().__init__()
        if fine.size is None or coarse.size is None:
            self.layer: nn.Module = nn.Linear(fine.width * (1 if fine.size is None else math.prod(fine.size)), coarse.width)
        else:
            self.layer = nn.Conv2d(fine.width, coarse.width, 3, stride=2, padding=1)
        self.flat = coarse.size is None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(_flatten(x) if self.flat else x)


class _Up(nn.Module):
    """From a coarser scale to the next finer one; maps by sub-pixel convolution, cut to the exact size.

    References:
        Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network
        (Shi et al., 2016), https://arxiv.org/abs/1609.05158
    """

    def __init__(self, coarse: Scale, fine: Scale) -> None:
        super().__init__()
        self.size, self.width, self.flat = fine.size, fine.width, coarse.size is None
        if self.flat:
            self.layer: nn.Module = nn.Linear(coarse.width, fine.width * (1 if fine.size is None else math.prod(fine.size)))
        else:
            self.layer = nn.Conv2d(coarse.width, 4 * fine.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(F.silu(x))
        if self.size is None or self.flat:
            return _unflatten(x, self.size, self.width)
        return F.pixel_shuffle(x, 2)[:, :, : self.size[0], : self.size[1]]


class LatentLayer(nn.Module):
    """Infers one layer's code from the features above it and those of x, and adds it to the features.

    The code is eps ~ N(0, I) under the prior, whatever lies above; the layer turns it into z = s(h) eps and adds a
    linear map of it to h. Since h already holds the mean, that is a Gaussian p(z | layers above) with learned mean and
    scale, written in standardised variables: the posterior N(mu, exp log_var) of eps is the shift and the scale
    relative to the prior.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), section 3.2,
        https://arxiv.org/abs/2007.03898
    """

    def __init__(self, scale: Scale, *, dropout: float = 0.0) -> None:
        super().__init__()
        size, width, _, latents = scale
        self.from_above = _mix(size, width, width)
        self.from_below = _mix(size, width, width)
        self.posterior = _mix(size, width, 2 * latents, 3)
        self.log_scale = _mix(size, width, latents)
        self.add = _mix(size, latents, width)
        self.block = Residual(size, width, dropout=dropout)
        nn.init.zeros_(self.log_scale.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.log_scale.bias)  # type: ignore[arg-type]

    def infer(self, h: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log_var of the posterior of eps; of several codes for one x, h has more rows than `features`."""
        below = self.from_below(features)
        if len(h) > len(below):
            below = below.repeat_interleave(len(h) // len(below), 0)
        mu, log_var = self.posterior(F.silu(self.from_above(h) + below)).float().chunk(2, 1)
        # Far wider than the prior a posterior says nothing, and while divergences cost little yet it could run away.
        return mu, log_var.clamp(-20, 4)

    def forward(self, h: Tensor, eps: Tensor) -> Tensor:
        """The features with the code in them."""
        # A scale within e^+-3 of one: more would overflow before it is learned.
        return self.block(h + self.add(eps * (3 * torch.tanh(self.log_scale(h) / 3)).exp()))


class Ladder(Network):
    """The encoder and the decoder of a hierarchy of latent layers, which share their way down.

    Arguments:
        shape: of one example; (channels, height, width) for maps, else flattened.
        scales: the coarsest first; the first is of vectors. Maps halve in size, rounded up, from one scale to the one
            above it, and the finest is an image folded by a power of two (its pixels become channels).
        dropout: share of the hidden units that training silences in the residual blocks.

    References:
        Ladder Variational Autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021),
        https://arxiv.org/abs/2011.10650
    """

    def __init__(self, shape: Sequence[int], scales: Sequence[Scale], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape, self.scales = tuple(shape), tuple(scales)
        finest, numbers = self.scales[-1], math.prod(shape)
        self.fold = 1
        if finest.size is not None:
            while -(-shape[1] // self.fold) > finest.size[0] or -(-shape[2] // self.fold) > finest.size[1]:
                self.fold *= 2
            numbers = shape[0] * self.fold**2
        self.stem = _mix(finest.size, numbers, finest.width, 3)
        self.head = _mix(finest.size, finest.width, numbers, 3)
        pairs = list(zip(self.scales[:-1], self.scales[1:], strict=True))
        self.down = nn.ModuleList(_Down(fine, coarse) for coarse, fine in pairs)
        self.up = nn.ModuleList(_Up(coarse, fine) for coarse, fine in pairs)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(Residual(scale.size, scale.width, dropout=dropout) for _ in range(scale.layers))) for scale in self.scales
        )
        self.layers = nn.ModuleList(
            nn.ModuleList(LatentLayer(scale, dropout=dropout) for _ in range(scale.layers)) for scale in self.scales
        )
        self.start = nn.Parameter(torch.zeros(self.scales[0].width))
        self.codes = [scale.codes for scale in self.scales for _ in range(scale.layers)]

    @property
    def numbers(self) -> int:
        """Numbers in the largest features of one code."""
        return max(scale.width * (1 if scale.size is None else math.prod(scale.size)) for scale in self.scales)

    def _gather(self, x: Tensor) -> list[Tensor]:
        """Features of x at each scale, the coarsest first."""
        finest = self.scales[-1]
        if finest.size is None:
            x = x.flatten(1)
        else:
            (height, width), fold = finest.size, self.fold
            x = F.pixel_unshuffle(F.pad(x, (0, width * fold - x.shape[3], 0, height * fold - x.shape[2])), fold)
        h = self.stem(x)
        found: list[Tensor] = []
        for i in reversed(range(len(self.scales))):
            h = self.encoder[i](h)
            found.insert(0, F.silu(h))
            if i:
                h = self.down[i - 1](found[0])
        return found

    def compute(self, x: Float[Tensor, "batch ..."] | None, noise: Float[Tensor, "rows codes"]) -> Float[Tensor, "rows numbers"]:
        """One walk down the ladder.

        Arguments:
            x: rows / batch codes are inferred for each example, from the posterior. None: `noise` is the code.
            noise: standard normal; all layers' codes side by side, the top one first.

        The result is the output (a flattened example) and, where x is given, mu and log_var of all codes: (rows, numbers
        of an example + 2 codes).
        """
        features = None if x is None else self._gather(x)
        mus, log_vars = [], []
        parts = iter(noise.split(self.codes, 1))
        h = self.start.expand(len(noise), -1)
        for i, scale in enumerate(self.scales):
            if i:
                h = self.up[i - 1](h)
            for layer in self.layers[i]:
                eps = _unflatten(next(parts), scale.size, scale.latents)
                if features is not None:
                    mu, log_var = layer.infer(h, features[i])
                    eps = mu + (0.5 * log_var).exp() * eps
                    mus.append(_flatten(mu))
                    log_vars.append(_flatten(log_var))
                h = layer(h, eps)
        output = self.head(F.silu(h))
        if self.scales[-1].size is not None:
            output = F.pixel_shuffle(output, self.fold)[:, :, : self.shape[1], : self.shape[2]]
        return torch.cat((output.flatten(1).float(), *mus, *log_vars), 1)
