"""Errors of what a model restores from held-out examples under the noise of its training, beside those of the noisy input."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from pofx import examples
from pofx.core import Denoises
from pofx.findings import Row, mean
from pofx.metrics.reconstruction import psnr, ssim

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Denoises,)
kinds = frozenset({"images", "vectors", "sequences"})


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).flatten(1).square().mean(1)


def measure(subject: "Subject") -> Iterator[Row]:
    """Each error of restored examples; the trivial denoiser leaves the noise where it is."""
    clean = subject.real.x
    noisy = examples.corrupt(subject.model, clean)
    restored = examples.denoise(subject.model, noisy)
    measures: list[tuple[str, str, Callable[[Tensor, Tensor], Tensor]]] = [("squared error of restored examples", "per element", _squared)]
    if subject.model.spec.kind == "images":
        measures += [("PSNR of restored examples", "dB", psnr), ("SSIM of restored examples", "1 for equal images", ssim)]
    for name, unit, measured in measures:
        value, error, draws = mean(measured(clean, restored).numpy())
        yield Row(
            about="reconstruction", name=name, unit=unit, model=value, error=error, draws=draws, n=len(clean),
            baselines={"noisy example": float(measured(clean, noisy).mean())}, better="lower" if measured is _squared else "higher",
            note="under the noise of the training",
        )  # fmt: skip
