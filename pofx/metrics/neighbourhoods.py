"""Precision, recall, density and coverage: do samples lie where real data do, and do they reach everywhere real data are?"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pofx import intervals
from pofx.core import Samples
from pofx.findings import Draws, Flag, Row, share
from pofx.metrics.nearest import ELEMENTS, neighbours

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

K = 5
#: Real data that lie farther from the nearest training example than this quantile, and the share of samples that is too much.
FAR, OFF = 0.95, 0.7
#: What each says, in its row's note.
NOTES = {
    "precision": "share of samples inside the real data's neighbourhoods",
    "recall": "share of real data inside the samples' neighbourhoods",
    "density": "real neighbourhoods that a sample lies in, over k; may exceed 1",
    "coverage": "share of real data with a sample in their own neighbourhood",
}


def prdc(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"], k: int = 5) -> dict[str, float]:
    """Precision, recall, density, coverage with balls around points that reach to their k-th nearest neighbour.

    With equal distributions density is 1, coverage 1 - 2^-k, and precision and recall what the dimension makes them.
    Raises `ValueError` for sets of k rows or fewer.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019),
        https://arxiv.org/abs/1904.06991
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020), https://arxiv.org/abs/2002.09797
    """
    real, fake = (np.asarray(rows, dtype=np.float64) for rows in (real, fake))
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"more than {k} rows of each set are needed, not {len(real)} and {len(fake)}")
    from sklearn.metrics import euclidean_distances
    from sklearn.utils.extmath import row_norms

    around_real, around_fake = (neighbours(rows, rows, k, skip_self=True)[0][:, -1] for rows in (real, fake))
    squares = row_norms(fake, squared=True)[None]
    inside = np.zeros(len(fake), np.int64)
    recalled = covered = 0
    # Real examples some at a time: 50,000 against 50,000 would be a matrix of 20 GB.
    step = max(1, ELEMENTS // len(fake))
    for start in range(0, len(real), step):
        distance = euclidean_distances(real[start : start + step], fake, Y_norm_squared=squares)
        hits = distance < around_real[start : start + step, None]
        inside += hits.sum(0)
        covered += int(hits.any(1).sum())
        recalled += int((distance < around_fake).any(1).sum())
    return {
        "precision": float((inside > 0).mean()),
        "recall": recalled / len(real),
        "density": float(inside.mean() / k),
        "coverage": covered / len(real),
    }


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """All four, each beside real data against real data."""
    real, fake, other, trivial = (subject.seen(which) for which in ("real", "drawn", "other", "gaussian"))
    if len(real) <= 2 * K + 1:
        return
    mine, floor, theirs = (prdc(real, rows, K) for rows in (fake, other, trivial))
    subsets = [prdc(real[i], fake[j], K) for i, j in intervals.halves(len(real), len(fake), intervals.FEW_ROUNDS)]
    for name, note in NOTES.items():
        draws = Draws("subsets", np.array([found[name] for found in subsets]))
        yield Row(
            about="samples", name=name, unit=f"k = {K}", model=mine[name], error=draws.error(), draws=draws, n=len(fake),
            baselines={"gaussian": theirs[name]}, better="floor" if name == "density" else "higher", floor=floor[name],
            features=subject.features.name, meaning=note,
        )  # fmt: skip
    # Neighbourhoods of lonely examples are so wide that noise may lie in one: distances tell noise, precision does not.
    usual, reached = (neighbours(rows, other)[0][:, 0] for rows in (real, fake))
    far, error, draws = share(reached > np.quantile(usual, FAR))
    # The quantile is an estimate too.
    error = math.hypot(error or 0.0, math.sqrt(FAR * (1 - FAR) / len(real)))
    yield Row(
        about="samples", name="samples far from data", unit="share", model=far, error=error, draws=draws, n=len(fake),
        baselines={"gaussian": float((neighbours(trivial, other)[0][:, 0] > np.quantile(usual, FAR)).mean())},
        floor=1 - FAR, features=subject.features.name, meaning="farther from training examples than 95 % of held-out data",
    )  # fmt: skip
    if far > OFF:
        yield Flag(
            check="off the data",
            sentence=f"{far:.0%} of the samples lie farther from training examples than {FAR:.0%} of held-out data do: "
            "look at samples; train longer, or with a lower learning rate",
        )
