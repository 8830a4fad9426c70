"""Memorisation: are samples copies of training examples, or of each other? Calibrated on held-out data, which are no copies."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from pofx.core import Samples, mix
from pofx.findings import Flag, Row, mean, number, share
from pofx.metrics.nearest import neighbours

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Cells of C_T, and the samples that a cell must have.
CELLS, ENOUGH = 3, 20
#: Held-out examples that may look like copies, at least so many of them, and the share of samples that is too much.
EXPECTED, LEAST, TOO_MANY = 0.01, 5, 0.1
#: Held-out examples below which the threshold of copies is too uncertain for a flag.
CERTAIN = 50
#: Two samples nearer than this share of the usual distance between neighbours are the same picture.
SAME = 0.1


def c_t(
    train: Float[np.ndarray, "n features"],
    held_out: Float[np.ndarray, "m features"],
    fake: Float[np.ndarray, "k features"],
    *,
    cells: int = CELLS,
    seed: int = 0,
) -> float:
    """The data-copying statistic: are samples nearer to training examples than held-out examples are?

    In each of some cells of the data the z-score of a Mann-Whitney test between distances to the nearest training
    example, averaged with the held-out share of each cell. Far below 0: copies; far above: samples off the data.
    NaN where no cell has enough samples. Cells are found by k-means on the training examples.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan, Chaudhuri and Dasgupta, 2020),
        https://arxiv.org/abs/2004.05675
    """
    from sklearn.cluster import KMeans

    means = KMeans(cells, n_init=3, random_state=mix(seed, "cells") % 2**31).fit(train)
    distances = [neighbours(rows, train)[0][:, 0] for rows in (held_out, fake)]
    return _c_t(*distances, *(means.predict(rows) for rows in (held_out, fake)))


def _c_t(held: np.ndarray, fake: np.ndarray, held_cell: np.ndarray, fake_cell: np.ndarray) -> float:
    """C_T from distances and cells."""
    total = weight = 0.0
    for cell in np.unique(held_cell):
        ours, theirs = fake[fake_cell == cell], held[held_cell == cell]
        if len(ours) >= ENOUGH:
            total += len(theirs) / len(held) * _mann_whitney(theirs, ours)
            weight += len(theirs) / len(held)
    return total / weight if weight else math.nan


def _mann_whitney(held: np.ndarray, fake: np.ndarray) -> float:
    """z-score of how often a distance of `fake` exceeds one of `held`."""
    from scipy.stats import rankdata

    n, m = len(held), len(fake)
    ranks = rankdata(np.concatenate((held, fake)))
    u = ranks[n:].sum() - m * (m + 1) / 2
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def authenticity(train: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> float:
    """Share of samples that are farther from their nearest training example than that one is from its own nearest.

    1 is not to be expected: read it beside the same number of held-out data.

    References:
        How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and Auditing Generative Models
        (Alaa et al., 2022), https://arxiv.org/abs/2102.08921
    """
    return float(_authentic(*(column[:, 0] for column in neighbours(fake, train)), train).mean())


def _authentic(distance: np.ndarray, nearest: np.ndarray, train: np.ndarray) -> Bool[np.ndarray, " m"]:
    asked, place = np.unique(nearest, return_inverse=True)
    # Two neighbours, the nearer of which is the example itself.
    own = neighbours(train[asked], train, 2)[0][:, 1]
    return distance > own[place]


class Copies(NamedTuple):
    """held, fake: which held-out examples and samples look like copies; expected: share that held-out ones may."""

    held: Bool[np.ndarray, " m"]
    fake: Bool[np.ndarray, " k"]
    expected: float


def closeness(pairs: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Distance to the nearest training example over that to the next one: 0 for a copy, 1 where both are as far."""
    # Copies of an example that the training part has twice have two neighbours at distance 0.
    return np.divide(pairs[:, 0], pairs[:, 1], out=np.ones(len(pairs)), where=pairs[:, 1] > 0)


def copies(held: Float[np.ndarray, "m 2"], fake: Float[np.ndarray, "k 2"]) -> Copies:
    """Which examples are far nearer to one training example than to any other, from distances to the nearest two.

    The threshold of their ratio is the one that 1 % of held-out examples (five at least) stay below. A ratio, since samples
    that are smoother than data come nearer to all training examples without copying one.
    """

    expected = min(1.0, max(EXPECTED, LEAST / len(held)))
    threshold = np.quantile(closeness(held), expected)
    return Copies(closeness(held) <= threshold, closeness(fake) <= threshold, expected)


def repeated(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> Bool[np.ndarray, " m"]:
    """Which samples have another sample nearer than a tenth of the usual distance between neighbours in real data.

    References:
        Do GANs Learn the Distribution? Some Theory and Empirics (Arora, Risteski and Zhang, 2018), the birthday test,
        https://arxiv.org/abs/1706.08224
    """
    usual = float(np.median(neighbours(real, real, skip_self=True)[0]))
    return neighbours(fake, fake, skip_self=True)[0][:, 0] <= SAME * usual


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """In principal components: a network that was trained on the training part sees it with other eyes."""
    from sklearn.cluster import KMeans

    by = subject.components
    real, fake, train = (subject.seen(which, by) for which in ("real", "drawn", "training"))
    if len(train) <= max(CELLS, 2) or len(real) <= LEAST:
        return
    (held_distance, held_row), (fake_distance, fake_row) = (neighbours(rows, train, 2) for rows in (real, fake))
    n = len(fake)

    def row(name: str, unit: str, **fields: object) -> Row:
        return Row(about="memorisation", name=name, unit=unit, n=n, features=by.name, **fields)  # type: ignore[arg-type]

    value, error, draws = mean(fake_distance[:, 0])
    usual = float(held_distance[:, 0].mean())
    note = f"against {len(train):,} training examples"
    yield row(
        "distance to the nearest training example", "mean", model=value, error=error, draws=draws, better="floor", floor=usual, note=note
    )
    means = KMeans(CELLS, n_init=3, random_state=0).fit(train)
    score = _c_t(held_distance[:, 0], fake_distance[:, 0], means.predict(real), means.predict(fake))
    # No cell of few samples says anything.
    if math.isfinite(score):
        yield row(
            "C_T", "z-score", model=score, error=1.0, better="neither", floor=0.0,
            meaning="far below 0: nearer to training examples than held-out data, by copying or by smoothness; far above 0: off the data; "
            "its interval is that of equal distributions",
        )  # fmt: skip
    authentic, error, draws = share(_authentic(fake_distance[:, 0], fake_row[:, 0], train))
    truth = float(_authentic(held_distance[:, 0], held_row[:, 0], train).mean())
    yield row("authenticity", "share", model=authentic, error=error, draws=draws, better="floor", floor=truth)
    found = copies(held_distance, fake_distance)
    copied, error, draws = share(found.fake)
    shown, known = _bytes(subject, subject.drawn), set(_bytes(subject, subject.training.x))
    yield row(
        "copies of training examples", "share", model=copied, error=error, draws=draws, floor=float(found.held.mean()), better="floor",
        meaning=f"far nearer to one training example than to any other, as {found.expected:.1%} of held-out examples are",
        note=f"{sum(sample in known for sample in shown):,} samples equal one of {len(train):,} training examples exactly",
    )  # fmt: skip
    again, error, draws = share(repeated(real, fake))
    theirs = float(repeated(real, real).mean())
    yield row(
        "repeated samples", "share", model=again, error=error, draws=draws, floor=theirs, better="floor",
        meaning="another sample nearer than a tenth of the usual distance", note=f"{len(shown) - len(set(shown)):,} exact duplicates",
    )  # fmt: skip
    if len(real) < CERTAIN:
        return
    if copied - found.held.mean() - 2 * (error or 0) > TOO_MANY:
        yield Flag(
            check="memorisation",
            sentence=f"{copied:.0%} of the samples are far nearer to one training example than to any other, as {found.held.mean():.1%} of "
            "held-out data are: see the figure `copies`; train shorter, on more data or with augmentation",
        )
    if again - theirs > TOO_MANY:
        yield Flag(
            check="repetition",
            sentence=f"{again:.0%} of the samples repeat another sample ({theirs:.1%} of real data do; distances are in units of "
            f"{number(usual)} to the nearest training example): the model draws few different ones; look at them, and train longer or "
            "with a lower learning rate",
        )


def _bytes(subject: "Subject", x: Tensor) -> list[bytes]:
    """Each example in the source's units, so that equal ones are equal."""
    return [row.tobytes() for row in np.asarray(subject.train.codec.show(x))]
