"""Sharpness: the fine detail of drawn images beside that of real ones."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx.core import Samples
from pofx.findings import Flag, Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images"})

#: Less detail than this share of real images' is blur.
BLURRED = 0.2


def detail(x: Float[Tensor, "n channels height width"]) -> Float[np.ndarray, " n"]:
    """Mean square of each image's Laplacian, the energy of its finest detail.

    References:
        Diatom Autofocusing in Brightfield Microscopy: a Comparative Study (Pech-Pacheco et al., 2000),
        https://doi.org/10.1109/ICPR.2000.903548
    """
    kernel = x.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).expand(x.shape[1], 1, 3, 3)
    return torch.nn.functional.conv2d(x, kernel, groups=x.shape[1]).square().flatten(1).mean(1).to(torch.float64).numpy()


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """The mean detail of samples over that of held-out images."""
    if min(subject.model.spec.shape[1:]) < 3:
        return
    real = float(detail(subject.real.x).mean())
    if not real:
        return
    value, error, draws = mean(detail(subject.drawn) / real)
    yield Row(
        about="samples", name="sharpness", unit="fine detail over that of held-out images", model=value, error=error, draws=draws,
        n=subject.n, baselines={"gaussian": float(detail(subject.gaussian).mean()) / real}, better="floor",
        floor=float(detail(subject.other.x).mean()) / real, features="Laplacian of pixels", meaning="far above 1: noise",
    )  # fmt: skip
    if value < BLURRED:
        yield Flag(check="blur", sentence=f"samples have {value:.0%} of the fine detail of real images: they are blurred")
