"""What a pixel may be, given features of those before it: probabilities of its levels, channel after channel."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import pick
from pofx.losses import LEVELS, discretised_logistic_nll

START, FLOOR = -2.0, -7.0
"""Where the logarithms of scales start, and how small they may become; a pixel lies in [0, 1]."""


class Levels(nn.Module, ABC):
    """P(pixel | features), whose channels are drawn in turn, each given those before it. Pixels are (..., channels) in [0, 1]."""

    @abstractmethod
    def forward(self, features: Float[Tensor, "... features"], x: Float[Tensor, "... channels"]) -> Float[Tensor, "... outputs"]:
        """What is computed of features, and of the earlier channels of pixels that are known: the network's part."""

    @abstractmethod
    def nll(
        self, outputs: Float[Tensor, "batch height width outputs"], x: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, " batch"]:
        """-log P(x) of outputs, in nats per image."""

    @abstractmethod
    def draw(
        self,
        features: Tensor,
        x: Tensor,
        keep: Tensor,
        uniform: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Pixels (n, channels), of which the channels in `keep` (n, channels) are those of x and the others follow from features
        (n, features) and the random numbers `uniform` (n, channels, 2) in [0, 1). (Shapes that are declared are checked in tests,
        which takes as long as drawing a pixel.)

        A channel is drawn given the earlier ones, kept or drawn. temperature: divides logits, and multiplies scales.
        """


def choose(logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
    """One choice of each row of softmax(logits / temperature), (n, choices), by the random numbers (n,) in [0, 1)."""
    return pick((logits.to("cpu", torch.float64) / temperature).softmax(-1), uniform).to(logits.device)


class Softmax(Levels):
    """A logit for each level of each channel; for two levels that is a coin.

    Features of a channel are those of the pixel and, of each earlier channel, a learned vector of its level.

    Arguments:
        channels: of a pixel. features: of a pixel. levels: 2 or 256.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759
    """

    def __init__(self, channels: int, features: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.heads = nn.ModuleList(nn.Linear(features, levels) for _ in range(channels))
        # Of channel c from those before it: 0 -> 1, 0 -> 2, 1 -> 2, ...
        self.earlier = nn.ModuleList(nn.Embedding(levels, features) for _ in range(channels * (channels - 1) // 2))
        for head in self.heads:
            # Its rows belong to levels, so that Muon leaves it alone.
            head.moved_as_matrix = False  # type: ignore[assignment]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def _level(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round().to(torch.int64)

    def _logits(self, features: Tensor, level: Tensor, channel: int) -> Tensor:
        if channel:
            first = channel * (channel - 1) // 2
            told = torch.stack([self.earlier[first + c](level[..., c]) for c in range(channel)]).sum(0)
            features = features + F.silu(features + told.to(features.dtype))
        return self.heads[channel](features)

    def forward(self, features: Float[Tensor, "... features"], x: Float[Tensor, "... channels"]) -> Float[Tensor, "... outputs"]:
        """Logits, channel after channel."""
        level = self._level(x)
        return torch.cat([self._logits(features, level, c) for c in range(self.channels)], -1)

    def nll(
        self, outputs: Float[Tensor, "batch height width outputs"], x: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, " batch"]:
        """Summed over pixels and channels."""
        if self.levels == 2:
            zero, one = outputs.unflatten(-1, (-1, 2)).unbind(-1)
            return F.softplus((1 - 2 * x) * (one - zero)).flatten(1).sum(1)
        logits = outputs.reshape(-1, self.levels)
        return F.cross_entropy(logits, self._level(x).flatten(), reduction="none").view(len(x), -1).sum(1)

    def draw(
        self,
        features: Tensor,
        x: Tensor,
        keep: Tensor,
        uniform: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """By inverting each channel's cumulative probabilities at the first of its random numbers."""
        level = self._level(x)
        for c in range(self.channels):
            level[:, c] = torch.where(keep[:, c], level[:, c], choose(self._logits(features, level, c), uniform[:, c, 0], temperature))
        return torch.where(keep, x, level.to(x.dtype) / (self.levels - 1))


class LogisticMixture(Levels):
    """A mixture of logistic variables rounded to 256 levels; given its component, a channel's centre is linear in the earlier channels.

    Arguments:
        channels: of a pixel. features: of a pixel. components: of the mixture, which the channels of a pixel share.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications (Salimans et
        al., 2017), https://arxiv.org/abs/1701.05517
    """

    def __init__(self, channels: int, features: int, components: int) -> None:
        super().__init__()
        self.channels, self.components = channels, components
        numbers = 1 + 2 * channels + channels * (channels - 1) // 2
        self.head = nn.Linear(features, numbers * components)
        self.head.moved_as_matrix = False  # type: ignore[assignment]

    def forward(self, features: Float[Tensor, "... features"], x: Float[Tensor, "... channels"]) -> Float[Tensor, "... outputs"]:
        """Weights, then centres, log scales and slopes; x is not asked for."""
        return self.head(features)

    def _each(self, outputs: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """Centres and log scales of the components of a channel, (..., components)."""
        parts = outputs.unflatten(-1, (-1, self.components))
        spread = torch.linspace(0, 1, self.components, device=outputs.device, dtype=outputs.dtype)
        # The components start at different levels: equal ones would stay equal.
        centre = parts[..., 1 + channel, :] + spread
        first = 1 + 2 * self.channels + channel * (channel - 1) // 2
        for c in range(channel):
            centre = centre + parts[..., first + c, :].tanh() * (x[..., c, None] - 0.5)
        return centre, (parts[..., 1 + self.channels + channel, :] + START).clamp(min=FLOOR)

    def nll(
        self, outputs: Float[Tensor, "batch height width outputs"], x: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, " batch"]:
        """Summed over pixels; all channels of one are of one component."""
        log_p = outputs[..., : self.components].log_softmax(-1)
        for c in range(self.channels):
            log_p = log_p - discretised_logistic_nll(*self._each(outputs, x, c), x[..., c, None])
        return -log_p.logsumexp(-1).flatten(1).sum(1)

    def draw(
        self,
        features: Tensor,
        x: Tensor,
        keep: Tensor,
        uniform: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """For each channel the component at the first of its random numbers, given the earlier channels, and its level at the second."""
        outputs, x = self.head(features), x.clone()
        logits = outputs[..., : self.components]
        for c in range(self.channels):
            centre, log_scale = self._each(outputs, x, c)
            chosen = choose(logits, uniform[:, c, 0], temperature)[:, None]
            log_odds = uniform[:, c, 1:].clamp(1e-6, 1 - 1e-6).logit().to(outputs.dtype)
            value = centre.gather(1, chosen) + (log_scale.gather(1, chosen) + math.log(temperature)).exp() * log_odds
            drawn = (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1)[:, 0] / (LEVELS - 1)
            x[:, c] = torch.where(keep[:, c], x[:, c], drawn.to(x.dtype))
            logits = logits - discretised_logistic_nll(centre, log_scale, x[:, c, None])
        return x
