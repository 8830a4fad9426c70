"""Errors of decode(encode(x)) on held-out examples: squared error, PSNR, SSIM, cross-entropy, wrong tokens; the bits of a code."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx import baselines, examples
from pofx.core import Decodes, Encodes
from pofx.findings import Draws, Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Encodes, Decodes)
kinds = frozenset({"images", "tokens", "vectors", "sequences"})

#: Width of the Gaussian window of SSIM, its reach, and the constants for values in [0, 1].
SIGMA, REACH, C1, C2 = 1.5, 5, 0.01**2, 0.03**2
#: Training tokens among which the commonest is sought.
LOOKED_AT = 1 << 24
#: Steps of a code's quantisation, as a share of its standard deviation.
STEP = 0.5
NAME, COMMONEST = "mean training example", "commonest token"


def ssim(x: Float[Tensor, "n channels height width"], y: Float[Tensor, "n channels height width"]) -> Float[Tensor, " n"]:
    """Structural similarity of pairs of images in [0, 1], averaged over pixels and channels; 1 for equal images.

    An 11 x 11 Gaussian window of standard deviation 1.5, or the largest odd one that fits, over its valid positions, and
    the window's weighted variances.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004),
        https://doi.org/10.1109/TIP.2003.819861
    """
    x, y = x.to(torch.float64), y.to(torch.float64)
    channels = x.shape[1]

    def blur(z: Tensor) -> Tensor:
        for axis in (2, 3):
            reach = min(REACH, (z.shape[axis] - 1) // 2)
            place = torch.arange(-reach, reach + 1, dtype=torch.float64)
            window = (-0.5 * (place / SIGMA).square()).exp()
            shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
            kernel = (window / window.sum()).view(shape).expand(channels, *[-1] * 3)
            z = torch.nn.functional.conv2d(z, kernel, groups=channels)
        return z

    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).flatten(1).mean(1)


def psnr(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of pairs of images in [0, 1]: -10 log10 of the mean squared error of each, in decibels.

    An error of less than a tenth of a grey level counts as 80 dB, so that equal images do not make a mean infinite.
    """
    return -10 * (x - y).to(torch.float64).flatten(1).square().mean(1).clamp(min=1e-8).log10()


def bits_per_code(codes: Float[np.ndarray, "n dimensions"], *, step: float = STEP) -> float:
    """Entropy in bits of codes rounded to `step` standard deviations of each dimension, as if dimensions were independent.

    Fewer dimensions need not mean fewer bits. The sum over dimensions bounds the entropy of the whole code from above;
    that of each dimension has the Miller-Madow correction for few examples.

    References:
        Note on the Bias of Information Estimates (Miller, 1955), in Information Theory in Psychology
    """
    scale = codes.std(0)
    total = 0.0
    for column in (codes[:, scale > 0] / (step * scale[scale > 0])).T:
        _, counts = np.unique(np.round(column), return_counts=True)
        p = counts / counts.sum()
        total += float(-(p * np.log2(p)).sum()) + (len(counts) - 1) / (2 * len(codes) * math.log(2))
    return total


def measure(subject: "Subject") -> Iterator[Row]:
    """Each error beside that of the mean training example, or of the commonest token everywhere."""
    if subject.held.tokens:
        yield from _of_text(subject)
        return
    model, train = subject.model, subject.train.train
    shape, images = model.spec.shape, model.spec.kind == "images"
    total = torch.zeros(math.prod(shape), dtype=torch.float64)
    for batch in train.batches(baselines.ROWS):
        total += batch.x.flatten(1).to(torch.float64).sum(0)
    average = (total / len(train)).to(torch.float32)
    errors: dict[str, list[Tensor]] = {}
    trivial: dict[str, list[Tensor]] = {}
    floors, codes = [], []
    for batch in subject.batches():
        x = batch.x.cpu()
        z = examples.encode(model, batch)
        codes.append(z.flatten(1))
        for found, guess in ((errors, examples.decode(model, z, batch.label)), (trivial, average.view(shape).expand_as(x))):
            squared = (guess - x).flatten(1).square().mean(1)
            found.setdefault("squared", []).append(squared)
            if images:
                found.setdefault("decibel", []).append(psnr(x, guess))
                found.setdefault("similarity", []).append(ssim(x, guess))
                found.setdefault("entropy", []).append(_cross_entropy(x, guess))
        if images:
            floors.append(_cross_entropy(x, x))
    mine, theirs = ({name: torch.cat(parts).to(torch.float64).numpy() for name, parts in found.items()} for found in (errors, trivial))

    def row(key: str, name: str, unit: str, **fields: object) -> Row:
        value, error, draws = mean(mine[key])
        return Row(
            about="reconstruction", name=name, unit=unit, model=value, error=error, draws=draws, n=len(mine[key]),
            baselines={NAME: float(theirs[key].mean())}, **fields,  # type: ignore[arg-type]
        )  # fmt: skip

    baseline = float(theirs["squared"].mean())
    share = f"; {mine['squared'].mean() / baseline:.1%} of the baseline's" if baseline > 0 else ""
    yield row("squared", "squared error of reconstructions", "per element", note=("pixels in [0, 1]" if images else "standardised") + share)
    if images:
        yield row("decibel", "PSNR of reconstructions", "dB", better="higher")
        yield row("similarity", "SSIM of reconstructions", "1 for equal images", better="higher")
        floor = float(torch.cat(floors).mean())
        above = f"real: the entropy of the grey values themselves, {float(mine['entropy'].mean()) - floor:.4g} below the model"
        yield row("entropy", "cross-entropy of reconstructions", "nats per example", floor=floor, note=above)
    yield _bits(subject, torch.cat(codes))


def _of_text(subject: "Subject") -> Iterator[Row]:
    """The share of tokens that come back wrong, each at its own place."""
    model = subject.model
    counts = torch.bincount(subject.train.train.x[:LOOKED_AT].to(torch.int64), minlength=model.spec.vocabulary)
    commonest = int(counts.argmax())
    wrong: list[Tensor] = []
    trivial: list[Tensor] = []
    lengths: list[Tensor] = []
    codes = []
    for batch in subject.batches():
        x = batch.x.cpu()
        z = examples.encode(model, batch)
        codes.append(z)
        wrong.append((examples.cut(examples.decode(model, z), x) != x).sum(1))
        trivial.append((x != commonest).sum(1))
        lengths.append(torch.full((len(x),), x.shape[1]))
    missed, guessed, length = (torch.cat(parts).to(torch.float64) for parts in (wrong, trivial, lengths))
    rate = float(missed.sum() / length.sum())
    # A ratio of sums: the last window may be shorter.
    draws = Draws("examples", (rate + (missed - rate * length) * len(length) / length.sum()).numpy())
    yield Row(
        about="reconstruction",
        name="wrong tokens of reconstructions",
        unit="share of tokens",
        model=rate,
        error=draws.error() if len(length) > 1 else None,
        draws=draws,
        n=len(length),
        baselines={COMMONEST: float(guessed.sum() / length.sum())},
        space=f"windows of {model.window}",
        note="each token against the one at its place",
    )
    yield _bits(subject, torch.cat(codes))


def _bits(subject: "Subject", codes: Float[Tensor, "n dimensions"]) -> Row:
    """How much a code says: by the model's own probabilities where codes are discrete, else rounded."""
    with examples.asking(subject.model):
        prior = cast(Decodes, subject.model).prior()
        if examples.discrete(prior):
            device = subject.model.device
            bits = torch.cat([-prior.log_prob(part.to(device)).cpu() for part in codes.split(examples.PART)]) / math.log(2)
            value, error, draws = mean(bits.to(torch.float64).numpy())
            note = "codes are discrete: their length under the model's own prior"
        else:
            value, error, draws = bits_per_code(codes.numpy()), None, None
            note = f"{codes.shape[1]} dimensions rounded to half a standard deviation, as if independent"
    return Row(
        about="reconstruction", name="bits of a code", unit="bits per example", model=value, error=error, draws=draws, n=len(codes),
        better="neither", note=note,
    )  # fmt: skip


def _cross_entropy(x: Tensor, guess: Tensor) -> Tensor:
    """-sum x log(guess) + (1 - x) log(1 - guess), a grey value taken as a probability."""
    guess = guess.clamp(1e-6, 1 - 1e-6) if guess is not x else guess
    return -(torch.xlogy(x, guess) + torch.xlogy(1 - x, 1 - guess)).flatten(1).sum(1)
