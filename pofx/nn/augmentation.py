"""Augmentation of what a discriminator sees: random changes of images that gradients pass, of real and of generated ones alike.

With few examples a discriminator learns them by heart. Where it judges changed ones only, and both kinds are changed alike, it has more
to tell apart, and the generator still learns the data as they are, as long as a change leaves enough of them as they were.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Config, DataSpec, Range, UsageError

Change = Literal["flip", "shift", "colour", "cutout"]

TARGET, MOST, IMAGES = 0.6, 0.85, 100_000
"""Mean sign of D(x) on real examples that an adaptive strength aims at; its largest value, so that changes do not leak into samples;
and real examples over which it can rise by 1."""
MEMORY = 0.05
"""Share of each move in the mean sign."""


def flip(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Left and right exchanged."""
    return x.flip(3)


def shift(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Moved by up to an eighth of each side, what is beyond the edge mirrored."""
    n, _, height, width = x.shape
    far = [max(1, size // 8) if size > 2 else 0 for size in (height, width)]
    padded = F.pad(x, (far[1], far[1], far[0], far[0]), mode="reflect")
    starts = [torch.randint(2 * most + 1, (n, 1), device=x.device) for most in far]
    rows = (starts[0] + torch.arange(height, device=x.device)).view(n, 1, height, 1)
    columns = (starts[1] + torch.arange(width, device=x.device)).view(n, 1, 1, width)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return padded[torch.arange(n, device=x.device).view(n, 1, 1, 1), channels, rows, columns]


def colour(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Brighter or darker by up to 1/4, and half to one and a half times the contrast; the range is not kept."""
    bright, contrast = torch.rand(2, len(x), 1, 1, 1, device=x.device)
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (0.5 + contrast) + mean + 0.5 * (bright - 0.5)


def cutout(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """A rectangle of half of each side, anywhere and cut by the edges, made grey."""
    n, _, height, width = x.shape

    def hidden(size: int) -> Tensor:
        centre = torch.randint(size, (n, 1), device=x.device)
        return (torch.arange(size, device=x.device) - centre).abs() <= size / 4

    both = hidden(height).view(n, 1, height, 1) & hidden(width).view(n, 1, 1, width)
    return x.masked_fill(both, 0.5)


CHANGES: Mapping[str, Callable[[Tensor], Tensor]] = {"flip": flip, "shift": shift, "colour": colour, "cutout": cutout}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmented(Config):
    """What every game says of it in its configuration."""

    augment: tuple[Change, ...] = ()
    """How images are changed at random before the discriminator judges them, real and generated ones alike: flip (left and right),
    shift, colour, cutout. For few examples."""
    augment_strength: Annotated[float | None, Range(0, 1)] = None
    """How often each change is made. None: it follows how surely the discriminator knows the training examples."""


class Augmentation(nn.Module):
    """Changes each image in each way with a probability, the strength: a number, or one that follows how well real examples are known.

    Arguments:
        changes: names in `CHANGES`; they are made in that order.
        strength: in [0, 1]. None: it starts at 0 and rises where E sign D(x) of real examples is above 0.6, and falls where it is below;
            of D(x) - D(G(z)) where that alone has a meaning.

    Raises `UsageError` for a strength without changes, and for changes of anything but images.

    Attributes:
        strength: () the present one, as `known`, the running mean of the sign, training state: a checkpoint has it beside the weights.

    References:
        Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al., 2020), https://arxiv.org/abs/2006.10738
        Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), https://arxiv.org/abs/2006.06676
    """

    strength: Tensor
    known: Tensor

    def __init__(self, spec: DataSpec, changes: tuple[Change, ...], strength: float | None) -> None:
        super().__init__()
        if changes and spec.kind != "images":
            raise UsageError(f"augment changes images, and these data are {spec.kind}: leave it out")
        if strength is not None and not changes:
            raise UsageError(f"augment-strength is how often images are changed: say how as well, --model.augment {' '.join(CHANGES)}")
        self.changes = tuple(name for name in CHANGES if name in changes)
        self.adaptive = strength is None
        self.register_buffer("strength", torch.tensor(float(strength or 0.0)), persistent=False)
        self.register_buffer("known", torch.zeros(()), persistent=False)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Images in [0, 1] as a discriminator is to see them, by the global generator; as they are in evaluation mode."""
        return self.changed(x) if self.training and self.changes else x

    def changed(
        self, x: Float[Tensor, "batch channels height width"], strength: float | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """In training mode or not; by default with the present strength."""
        for name in self.changes:
            chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < (self.strength if strength is None else strength)
            x = torch.where(chosen, CHANGES[name](x), x)
        return x

    @torch.no_grad()
    def adapt(self, on_real: Float[Tensor, " batch"]) -> None:
        """Takes in the logits of real examples (less those of generated ones, where only the difference has a meaning)."""
        if not (self.adaptive and self.changes and self.training):
            return
        self.known.lerp_(on_real.sign().mean(), MEMORY)
        step = len(on_real) / IMAGES
        self.strength.add_(step * (self.known - TARGET).sign()).clamp_(0, MOST)
