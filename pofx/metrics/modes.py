"""Modes of a known mixture that are found, and the share of samples that lie near one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from pofx.core import Samples
from pofx.data import toys
from pofx.findings import Row, share

if TYPE_CHECKING:
    from torch import Tensor

    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"vectors"})


class Coverage(NamedTuple):
    """found: modes with at least one sample within 3 sigma. near: share of samples within 3 sigma of their nearest mode.
    hits: which samples are."""

    found: int
    near: float
    hits: np.ndarray


def mode_coverage(x: Float[np.ndarray, "n features"], centres: Float[np.ndarray, "modes features"], sigma: float) -> Coverage:
    """Modes found and share of samples near one; in two dimensions 98.9 % of the true mixture are near.

    References:
        VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning (Srivastava et al., 2017),
        https://arxiv.org/abs/1705.07761
    """
    distance = np.linalg.norm(np.asarray(x, dtype=np.float64)[:, None] - centres[None], axis=-1)
    near = distance.min(1) <= 3 * sigma
    return Coverage(found=len(np.unique(distance.argmin(1)[near])), near=float(near.mean()), hits=near)


def measure(subject: "Subject") -> Iterator[Row]:
    """For the built-in mixtures, whose modes are known."""
    if subject.train.source not in toys.MIXTURES or subject.dataset.source != subject.train.source:
        return
    centres, codec = toys.modes(subject.train.source), subject.train.codec

    def look(x: "Tensor") -> Coverage:
        return mode_coverage(np.asarray(codec.show(x)), centres, toys.SIGMA)

    mine, theirs, truth = look(subject.drawn), look(subject.gaussian), look(subject.real.x)
    yield Row(
        about="samples", name="modes found", unit=f"of {len(centres)}", model=mine.found, error=None, n=subject.n,
        baselines={"gaussian": theirs.found}, better="higher", floor=truth.found,
    )  # fmt: skip
    near, error, draws = share(mine.hits)
    yield Row(
        about="samples", name="samples within 3 sigma of a mode", unit="share", model=near, error=error, draws=draws, n=subject.n,
        baselines={"gaussian": theirs.near}, better="higher", floor=truth.near,
    )  # fmt: skip
