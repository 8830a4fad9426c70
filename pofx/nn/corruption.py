"""Corruption of examples: what a denoiser learns to undo."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Corruption = Literal["gaussian", "masking", "salt_and_pepper"]


def corrupt(
    x: Float[Tensor, "batch ..."], random: Float[Tensor, "batch ..."], kind: Corruption, strength: float, *, images: bool
) -> Float[Tensor, "batch ..."]:
    """x under noise, element by element.

    gaussian: x + strength x normal numbers, of images cut off at 0 and 1. masking: a share `strength` of the elements
    becomes 0. salt_and_pepper: such a share becomes 0 or 1, at equal odds.

    Arguments:
        random: standard normal numbers for gaussian, uniform ones in [0, 1) for the others.

    References:
        Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising Criterion
        (Vincent et al., 2010), https://jmlr.org/papers/v11/vincent10a.html
    """
    match kind:
        case "gaussian":
            noisy = x + strength * random
            return noisy.clamp(0, 1) if images else noisy
        case "masking":
            return x.masked_fill(random < strength, 0.0)
        case "salt_and_pepper":
            return x.masked_fill(random < strength, 0.0).masked_fill(random < strength / 2, 1.0)
