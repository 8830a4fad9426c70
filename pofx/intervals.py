"""Uncertainty of numbers that compare sets: subsets without replacement, and real data shuffled against real data.

Resampling with replacement would put duplicates into sets, which distances between sets and neighbours take for collapse.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pofx.core import mix
from pofx.findings import Draws

#: Subsets, and shuffles of real data.
ROUNDS = 40
#: What halves vary by chance must not count as first order.
SLACK = 1.1
#: Rounds for measures whose cost grows with the square of the examples, and for sums that all rounds share.
FEW_ROUNDS, MANY_ROUNDS = 16, 60


class Spread(NamedTuple):
    """floor: mean of the measure over shuffles of real data. error: standard error of the measure. draws: over subsets."""

    floor: float
    error: float
    draws: Draws


def halves(n: int, m: int, rounds: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of two sets: half of each without replacement, drawn by the seed."""
    random = np.random.default_rng(mix(seed, "halves", n, m))
    for _ in range(rounds):
        yield random.permutation(n)[: max(2, n // 2)], random.permutation(m)[: max(2, m // 2)]


def shuffles(n: int, m: int, rounds: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of a pool of n + m: the first n and the other m of a permutation, drawn by the seed."""
    random = np.random.default_rng(mix(seed, "shuffles", n, m))
    for _ in range(rounds):
        order = random.permutation(n + m)
        yield order[:n], order[n:]


def combine(subsets: np.ndarray, shuffled: np.ndarray) -> float:
    """Standard error of a measure of first and second order from its values over halves and over shuffled real data.

    With a + b the variance of the measure, a of first order (falling as 1/n) and b of second order (as 1/n^2, all there
    is between equal distributions), halves vary by a + 3 b, and shuffled real data by b.

    References:
        Approximation Theorems of Mathematical Statistics (Serfling, 1980), chapter 5,
        https://doi.org/10.1002/9780470316481
    """
    second = float(np.var(shuffled, ddof=1))
    first = max(0.0, float(np.var(subsets, ddof=1)) - SLACK * 3 * second)
    return math.sqrt(first + second)


def distance(
    measure: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, fake: np.ndarray, other: np.ndarray, *, seed: int = 0
) -> Spread:
    """Floor and standard error of measure(real, fake), a distance that is 0, or degenerate, between equal distributions.

    Arguments:
        other: further real examples; the floor is the mean of measure over ways to divide the pool of `real` and `other`.
    """
    subsets = np.array([measure(real[i], fake[j]) for i, j in halves(len(real), len(fake), ROUNDS, seed)])
    pool = np.concatenate((real, other))
    shuffled = np.array([measure(pool[i], pool[j]) for i, j in shuffles(len(real), len(other), ROUNDS, seed)])
    return Spread(float(shuffled.mean()), combine(subsets, shuffled), Draws("subsets", subsets))
