"""Missing modes: cells of the data that samples (almost) never fall into, and cells with a significantly wrong share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from pofx import intervals
from pofx.core import Samples, mix
from pofx.findings import Draws, Flag, Row

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Examples that a cell should have, and the number of cells.
IN_A_CELL, MOST = 20, 20
#: A cell with less than this share of its due is missing; more missing data than that is flagged.
MISSING, TOO_MANY = 0.1, 0.15
#: z-score from which a cell's share differs, at 5 %.
DIFFERENT = 1.96


class Bins(NamedTuple):
    """missing: share of real data in cells with less than a tenth of their due. different: share of cells whose share
    differs significantly."""

    missing: float
    different: float


def bins(real: np.ndarray, fake: np.ndarray, cells: int) -> Bins:
    """From the cell of each example.

    References:
        On GANs and GMMs (Richardson and Weiss, 2018), https://arxiv.org/abs/1805.12462
    """
    due, got = (np.bincount(labels, minlength=cells) / len(labels) for labels in (real, fake))
    pooled = (due * len(real) + got * len(fake)) / (len(real) + len(fake))
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / len(real) + 1 / len(fake)))
    return Bins(float(due[got < MISSING * due].sum()), float((np.abs(due - got) / error > DIFFERENT).mean()))


def cells(train: Float[np.ndarray, "n features"], examples: int, *, seed: int = 0) -> "tuple[object, int]":
    """k-means of the training examples (it has `predict`), and how many cells; about 20 of `examples` fall into each."""
    from sklearn.cluster import KMeans

    count = int(np.clip(examples // IN_A_CELL, 2, MOST))
    return KMeans(count, n_init=1, random_state=mix(seed, "bins") % 2**31).fit(train), count


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """The share of real data that is missing, and the share of cells that differ.

    In principal components, where blur leaves an image in its cell: a check of what is drawn, not how well.
    """
    by = subject.components
    real, fake, other, trivial = (subject.seen(which, by) for which in ("real", "drawn", "other", "gaussian"))
    if len(real) < 2 * IN_A_CELL:
        return
    means, count = cells(other, len(real))
    place = {name: means.predict(rows) for name, rows in (("real", real), ("fake", fake), ("other", other), ("gaussian", trivial))}  # type: ignore[attr-defined]
    mine, floor, theirs = (bins(place["real"], place[name], count) for name in ("fake", "other", "gaussian"))
    subsets = [bins(place["real"][i], place["fake"][j], count) for i, j in intervals.halves(len(real), len(fake), intervals.ROUNDS)]
    texts = {
        "missing": ("missing modes", f"share of real data in cells with under {MISSING:.0%} of their due"),
        "different": ("cells with a wrong share", f"of {count}, at 5 % significance"),
    }
    for key, (name, note) in texts.items():
        draws = Draws("subsets", np.array([getattr(found, key) for found in subsets]))
        yield Row(
            about="samples", name=name, unit="share", model=getattr(mine, key), error=draws.error(), draws=draws, n=len(fake),
            baselines={"gaussian": getattr(theirs, key)}, floor=getattr(floor, key), features=by.name, meaning=note,
        )  # fmt: skip
    if mine.missing - floor.missing > TOO_MANY:
        yield Flag(
            check="missing modes",
            sentence=f"{mine.missing:.0%} of real data lie where samples almost never fall ({floor.missing:.0%} for real data): parts of the "
            "data are not drawn; look at samples beside data, train longer or with a larger model",
        )
