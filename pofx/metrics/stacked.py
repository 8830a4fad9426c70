"""Modes of stacked images: a classifier names each channel, and the triples of classes are counted."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64

from pofx import data
from pofx import features as extractors
from pofx.core import Samples
from pofx.data import stacked
from pofx.findings import Flag, Row

if TYPE_CHECKING:
    from torch import Tensor

    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images"})

#: A mode has its share with so many times the examples that it should have.
ENOUGH = 0.5
#: Modes are missing where samples show less than this share of the modes that as many real triples show.
MISSING = 0.9


class Stacked(NamedTuple):
    """found: modes with at least one sample. filled: modes with at least half of the samples that each would have if all
    were alike (13 of 26, for 26,000 samples and 1,000 modes). kl: KL(samples || even shares) in nats."""

    found: int
    filled: int
    kl: float


def stacked_modes(mode: Int[np.ndarray, " n"], modes: int) -> Stacked:
    """How many of the modes samples show, and how far their shares p are from even ones: KL = sum p log(p modes).

    KL is biased upwards, by about (modes - 1) / 2n nats for samples from even shares (0.019 for 26,000 samples and 1,000
    modes): the same number of real data at the same n stands beside it.

    Arguments:
        mode: of each sample, from 0 to below `modes`.

    References:
        Unrolled Generative Adversarial Networks (Metz et al., 2017), section 3.3.2, https://arxiv.org/abs/1611.02163
        PacGAN: The Power of Two Samples in Generative Adversarial Networks (Lin et al., 2018), section 4.2,
        https://arxiv.org/abs/1712.04086
    """
    counts = np.bincount(mode, minlength=modes)
    p = counts[counts > 0] / counts.sum()
    return Stacked(
        found=int((counts > 0).sum()),
        filled=int((counts >= max(1.0, ENOUGH * counts.sum() / modes)).sum()),
        kl=float((p * np.log(p * modes)).sum()),
    )


class Judge:
    """A classifier of the single images, which names the channels of stacked ones.

    Arguments:
        source, options: of the stacked data; the classifier is the one that comes with pofx for the single images, or one that
            is trained now on those that the training part was stacked from.
    """

    def __init__(self, source: str, options: Any) -> None:
        single = data.load(stacked.base(source), data.Options(seed=options.get("seed", 0)))
        self._model, self.accuracy = extractors.classifier(single)
        self._classes = len(single.spec.label.names)  # type: ignore[union-attr]
        #: How many modes there are.
        self.modes = self._classes**stacked.CHANNELS

    def __call__(self, x: "Float[Tensor, 'n 3 height width']") -> Int64[np.ndarray, " n"]:
        """The number of the mode of each triple."""
        with torch.no_grad():
            named = [self._model.classify(part.flatten(0, 1)[:, None]).argmax(1) for part in x.cpu().split(extractors.PART)]
        return stacked.mode_of(torch.cat(named).view(-1, stacked.CHANNELS).numpy(), self._classes)


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """For the built-in stacked data, at the size of the images that the classifier knows."""
    source, options = subject.train.source, subject.train.options
    if source not in stacked.NAMES or subject.dataset.source != source or options.get("size") is not None:
        return
    judge = Judge(source, options)
    mine, theirs, truth = (stacked_modes(judge(x), judge.modes) for x in (subject.drawn, subject.gaussian, subject.real.x))
    note = f"channels named by a classifier that is right on {judge.accuracy:.1%} of single images"
    fields: dict[str, Any] = {"about": "samples", "error": None, "n": subject.n, "note": note}
    for name, of, unit, better in (
        ("modes found", lambda seen: seen.found, f"of {judge.modes:,}", "higher"),
        ("modes with half their share", lambda seen: seen.filled, f"of {judge.modes:,}", "higher"),
        ("divergence of modes from even shares", lambda seen: seen.kl, "nats", "lower"),
    ):
        yield Row(**fields, name=name, unit=unit, model=of(mine), baselines={"gaussian": of(theirs)}, better=better, floor=of(truth))
    if mine.found < MISSING * truth.found:
        yield Flag(
            check="missing modes",
            sentence=f"samples show {mine.found:,} of {judge.modes:,} modes, and as many real examples {truth.found:,}: train longer, with "
            "another seed or a stronger penalty",
        )
