"""Kernel distances between two sets of features: KID (cubic kernel) and the maximum mean discrepancy of Gaussian kernels."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from pofx import intervals
from pofx.core import Samples, mix
from pofx.findings import Draws, Row

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Widths of the Gaussian kernels, as multiples of the median distance between real examples.
WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
#: Examples of which half still are two.
LEAST = 4
#: Rows of a kernel matrix that are held at once.
BLOCK = 1024
#: Examples that the median distance is taken over.
MEDIAN = 2000

#: k(x, y) for all rows of two sets: (n, m).
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x^T y / d + 1)^3, the kernel of KID."""
    inner = x @ y.T
    inner /= x.shape[1]
    inner += 1
    return inner * inner * inner


def gaussians(real: np.ndarray) -> Kernel:
    """The mean of Gaussian kernels whose widths are set by the real examples alone, so that models can be compared."""
    some = real[:MEDIAN]
    within = _squared(some, some)[np.triu_indices(len(some), 1)]
    median = float(np.median(within)) or 1.0

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        distance = _squared(x, y)
        # Each width is twice the one before: its kernel is the fourth root of the one before.
        part = np.exp(-distance / (2 * WIDTHS[-1] ** 2 * median))
        total = part.copy()
        for _ in WIDTHS[1:]:
            np.square(part, out=part)
            np.square(part, out=part)
            total += part
        total /= len(WIDTHS)
        return total

    return kernel


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distance = -2 * (x @ y.T)
    distance += (x**2).sum(1)[:, None]
    distance += (y**2).sum(1)[None]
    return np.maximum(distance, 0, out=distance)


class _Sums:
    """Sums of a kernel over pairs of a pool's subsets, without the whole matrix in memory.

    Arguments:
        members: (pool, sets) indicators.
    """

    def __init__(self, kernel: Kernel, pool: np.ndarray, members: np.ndarray) -> None:
        self.sizes = members.sum(0)
        self.between = np.zeros((members.shape[1], members.shape[1]))
        self.diagonal = np.zeros(members.shape[1])
        for start in range(0, len(pool), BLOCK):
            part = slice(start, start + BLOCK)
            block = kernel(pool[part], pool)
            self.between += members[part].T @ (block @ members)
            self.diagonal += members[part].T @ block[np.arange(len(block)), np.arange(start, start + len(block))]

    def mmd(self, a: int, b: int) -> float:
        """The unbiased squared discrepancy of two sets."""
        within = sum((self.between[i, i] - self.diagonal[i]) / (self.sizes[i] * (self.sizes[i] - 1)) for i in (a, b))
        return float(within - 2 * self.between[a, b] / (self.sizes[a] * self.sizes[b]))


#: Rows of two sets.
Pair = tuple[np.ndarray, np.ndarray]


def _mmds(kernel: Kernel, pool: np.ndarray, pairs: Iterable[Pair]) -> np.ndarray:
    """E k(x, x') + E k(y, y') - 2 E k(x, y) over different examples, for pairs of sets of a pool's rows."""
    sets = [rows for pair in pairs for rows in pair]
    members = np.zeros((len(pool), len(sets)))
    for i, rows in enumerate(sets):
        members[rows, i] = 1
    sums = _Sums(kernel, pool, members)
    return np.array([sums.mmd(i, i + 1) for i in range(0, len(sets), 2)])


def _mmd(kernel: Kernel, real: np.ndarray, fake: np.ndarray) -> float:
    """The discrepancy of two whole sets."""
    return float(_mmds(kernel, np.concatenate((real, fake)), [_whole(real, fake)])[0])


def _whole(real: np.ndarray, fake: np.ndarray) -> Pair:
    return np.arange(len(real)), len(real) + np.arange(len(fake))


def _checked(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(rows, dtype=np.float64) for rows in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"two sets of at least two rows of equally many features are needed, not {x.shape} and {y.shape}")
    return x, y


class KernelDistance(NamedTuple):
    """value: mean over subsets. error: standard error of the distance between sets of these sizes, over the drawing of both."""

    value: float
    error: float


def kernel_distance(
    real: Float[np.ndarray, "n features"],
    fake: Float[np.ndarray, "m features"],
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Kernel (Inception) distance: the unbiased squared MMD under (x^T y / d + 1)^3, averaged over random subsets.

    It may come out below 0. Subsets are no larger than the smaller set. The error is taken from halves of both sets and from shuffles
    of their pool (`intervals.combine`): subsets of `size` overlap, and vary the less the more of a set they hold.
    Raises `ValueError` for fewer than two rows.

    References:
        Demystifying MMD GANs (Bińkowski, Sutherland, Arbel and Gretton, 2018), https://arxiv.org/abs/1801.01401
    """
    x, y = _checked(real, fake)
    size = min(size, len(x), len(y))
    random = np.random.default_rng(mix(seed, "kernel distance"))
    values = []
    for _ in range(subsets):
        a = x[random.choice(len(x), size, replace=False)]
        b = y[random.choice(len(y), size, replace=False)]
        values.append(_mmd(cubic, a, b))
    pool = np.concatenate((x, y))
    halves = ((i, len(x) + j) for i, j in intervals.halves(len(x), len(y), intervals.MANY_ROUNDS, seed))
    shuffles = intervals.shuffles(len(x), len(y), intervals.MANY_ROUNDS, seed)
    found = _mmds(cubic, pool, [*halves, *shuffles])
    error = intervals.combine(found[: intervals.MANY_ROUNDS], found[intervals.MANY_ROUNDS :])
    return KernelDistance(float(np.mean(values)), error)


def kernel_mmd(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), k the mean of Gaussian kernels; 0 in expectation for equal distributions,
    so that it may come out below 0. Unlike a Fréchet distance it sees more than means and covariances.

    Raises `ValueError` for fewer than two rows.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html
    """
    x, y = _checked(real, fake)
    return _mmd(gaussians(x), x, y)


def measure(subject: "Subject") -> Iterator[Row]:
    """Both kernels over all pairs (the mean over all subsets), with their errors and floors from one pass over the pairs."""
    if subject.n < LEAST:
        return
    parts = [subject.seen(which) for which in ("real", "drawn", "other", "gaussian")]
    for name, kernel in (("kernel distance (KID)", cubic), ("kernel MMD²", gaussians(parts[0]))):
        value, floor, error, draws, trivial = spread(kernel, *parts)
        yield Row(
            about="samples", name=name, unit="unbiased, 0 for equal distributions", model=value, error=error, draws=draws,
            n=len(parts[1]), baselines={"gaussian": trivial}, floor=floor, features=subject.features.name,
            meaning="over all pairs, the mean over all subsets",
        )  # fmt: skip


def spread(
    kernel: Kernel, real: np.ndarray, fake: np.ndarray, other: np.ndarray, trivial: np.ndarray
) -> tuple[float, float, float, Draws, float]:
    """Value, floor, standard error, draws, and the value of the trivial samples, as `intervals.distance` gives them."""
    # Sets that are never compared are in no common pool.
    halves = ((i, len(real) + j) for i, j in intervals.halves(len(real), len(fake), intervals.MANY_ROUNDS))
    value, *subsets = _mmds(kernel, np.concatenate((real, fake)), [_whole(real, fake), *halves])
    shuffles = intervals.shuffles(len(real), len(other), intervals.MANY_ROUNDS)
    shuffled = _mmds(kernel, np.concatenate((real, other)), shuffles)
    error = intervals.combine(np.array(subsets), shuffled)
    return float(value), float(shuffled.mean()), error, Draws("subsets", np.array(subsets)), _mmd(kernel, real, trivial)
