"""Nearest neighbours: does a sample's nearest neighbour tell that it is one?"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from pofx import intervals
from pofx.core import Samples
from pofx.findings import Draws, Row

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Examples of which half still have neighbours.
LEAST = 4
#: Numbers of a distance matrix that are held at once.
ELEMENTS = 1 << 23


def neighbours(
    points: Float[np.ndarray, "n features"], among: Float[np.ndarray, "m features"], k: int = 1, *, skip_self: bool = False
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Distances to the k nearest of `among`, nearest first, and their rows; a matrix of all distances never exists at once.

    Arguments:
        skip_self: `points` is `among`, and a point is not its own neighbour.
    Raises `ValueError` where there are fewer than k.
    """
    from sklearn.metrics import euclidean_distances
    from sklearn.utils.extmath import row_norms

    if k > len(among) - skip_self:
        raise ValueError(f"{k} neighbours are asked for among {len(among) - skip_self}")
    squares = row_norms(among, squared=True)[None]
    distances, rows = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
    step = max(1, ELEMENTS // len(among))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        distance = euclidean_distances(part, among, Y_norm_squared=squares, squared=True)
        if skip_self:
            distance[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        # One pass where only the nearest is wanted.
        nearest = distance.argmin(1)[:, None] if k == 1 else np.argpartition(distance, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(distance, nearest, 1)
        order = np.argsort(found, axis=1, kind="stable")
        rows[start : start + step] = np.take_along_axis(nearest, order, 1)
        distances[start : start + step] = np.sqrt(np.take_along_axis(found, order, 1))
    return distances, rows


def nearest_neighbour_accuracy(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> float:
    """Leave-one-out accuracy of telling real from fake by the nearest neighbour: 1/2 for equal distributions and sets,
    1 where they are apart, 0 where every sample is a copy of a real example.

    Raises `ValueError` for sets without two rows.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545
        An Empirical Study on Evaluation Metrics of Generative Adversarial Networks (Xu et al., 2018), https://arxiv.org/abs/1806.07755
    """
    return accuracy(real, fake)[0]


def accuracy(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> tuple[float, float]:
    """`nearest_neighbour_accuracy` and its standard error: p (1 - p) (1 + m) / (n + m) is its variance, m the share of
    points that are their neighbour's neighbour, since two such points are right or wrong together.

    References:
        Multivariate Two-Sample Tests Based on Nearest Neighbors (Schilling, 1986), https://doi.org/10.1080/01621459.1986.10478337
    """
    if min(len(real), len(fake)) < 2:
        raise ValueError("at least two rows of each set are needed")
    pool = np.concatenate((np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)))
    is_fake = np.arange(len(pool)) >= len(real)
    _, nearest = neighbours(pool, pool, skip_self=True)
    nearest = nearest[:, 0]
    share = float((is_fake[nearest] == is_fake).mean())
    mutual = float((nearest[nearest] == np.arange(len(pool))).mean())
    # Shares near 0 and 1 are not known for certain: one of n might have been otherwise.
    spread = max(share * (1 - share), 1 / len(pool))
    return share, math.sqrt(spread * (1 + mutual) / len(pool))


def measure(subject: "Subject") -> Iterator[Row]:
    """As an effect size beside real data against real data."""
    if subject.n < LEAST:
        return
    real, fake, other, trivial = (subject.seen(which) for which in ("real", "drawn", "other", "gaussian"))
    subsets = [nearest_neighbour_accuracy(real[i], fake[j]) for i, j in intervals.halves(len(real), len(fake), intervals.FEW_ROUNDS)]
    value, error = accuracy(real, fake)
    yield Row(
        about="samples",
        name="nearest-neighbour accuracy",
        unit="1/2 for equal distributions",
        model=value,
        error=error,
        draws=Draws("subsets", np.array(subsets)),
        n=len(fake),
        baselines={"gaussian": nearest_neighbour_accuracy(real, trivial)},
        better="floor",
        floor=nearest_neighbour_accuracy(real, other),
        features=subject.features.name,
        meaning="near 1: samples are told from real data by their neighbours; near 0: they are copies",
    )
