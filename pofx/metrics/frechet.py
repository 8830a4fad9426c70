"""Fréchet distance between Gaussians fitted to two sets of features; what FID is on Inception features."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pofx import intervals
from pofx.core import Samples
from pofx.findings import Row

if TYPE_CHECKING:
    from pofx.features import Features
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Examples of which half still have a covariance.
LEAST = 4
#: Numbers of samples through which a line is drawn.
SIZES = 15


def _factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a factor R of the covariance R^T R with at most as many rows as features."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"features must be (n, features), finite, with n of at least 2, not {x.shape}")
    mean = x.mean(0)
    return mean, np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r")


def frechet_distance(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> float:
    """|mean difference|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) in float64, in squared units of the features.

    With C = R^T R, tr (C1 C2)^(1/2) is the sum of the singular values of R1 R2^T: no root of a singular matrix is
    taken, so fewer rows than features do no harm to the arithmetic (they bias the estimate upwards all the same).
    Raises `ValueError` for fewer than two rows, for values that are not finite and for unequal numbers of features.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500
    """
    (mean1, root1), (mean2, root2) = _factor(real), _factor(fake)
    if len(mean1) != len(mean2):
        raise ValueError(f"both sets must have as many features, not {len(mean1)} and {len(mean2)}")
    cross = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    # Rounding can bring equal sets slightly below 0.
    return max(0.0, float(((mean1 - mean2) ** 2).sum() + (root1**2).sum() + (root2**2).sum() - 2 * cross))


def frechet_infinity(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"], *, seed: int = 0) -> float:
    """The Fréchet distance that endless samples would have: the bias of m samples falls as 1/m, so that a line through the
    distances of 15 numbers of them, from half to all, meets 1/m = 0 there. The real data stay all that there are.

    Raises `ValueError` for fewer than 4 samples.

    References:
        Effectively Unbiased FID and Inception Score and Where to Find Them (Chong and Forsyth, 2020),
        https://arxiv.org/abs/1911.07023
    """
    if len(fake) < LEAST:
        raise ValueError(f"an extrapolation takes at least {LEAST} samples, not {len(fake)}")
    random = np.random.default_rng(seed)
    sizes = np.linspace(len(fake) // 2, len(fake), SIZES).astype(int)
    found = [frechet_distance(real, fake[random.permutation(len(fake))[:size]]) for size in sizes]
    return float(np.polyfit(1 / sizes, found, 1)[1])


def measure(subject: "Subject") -> Iterator[Row]:
    """In the features of choice, and in principal components as a cross-check, so that no model is tuned to one network; with
    `full` also to the training part, which published numbers mostly are, and for endless samples."""
    if subject.n < LEAST:
        return
    yield _row(subject, subject.features)
    if subject.full:
        by = subject.features
        real, fake, train, other = (subject.seen(which, by) for which in ("real", "drawn", "training", "other"))
        common = {"about": "samples", "unit": "in mean variances of a feature", "n": len(fake), "features": by.name, "error": None}
        yield Row(
            name="Fréchet distance to training data", model=frechet_distance(train, fake), floor=frechet_distance(train, real),
            note=f"to {len(train):,} training examples; real: held-out data", **common,
        )  # fmt: skip
        yield Row(
            name="Fréchet distance of endless samples", model=frechet_infinity(real, fake), floor=frechet_infinity(real, other),
            meaning=f"a line through {SIZES} numbers of samples, met at 1/n = 0; the real data stay as many", **common,
        )  # fmt: skip
    if subject.components.name != subject.features.name:
        yield _row(subject, subject.components)


def _row(subject: "Subject", by: "Features") -> Row:
    real, fake, other = (subject.seen(which, by) for which in ("real", "drawn", "other"))
    spread = intervals.distance(frechet_distance, real, fake, other)
    return Row(
        about="samples",
        name="Fréchet distance",
        unit="in mean variances of a feature",
        model=frechet_distance(real, fake),
        error=spread.error,
        draws=spread.draws,
        baselines={"gaussian": frechet_distance(real, subject.seen("gaussian", by))},
        n=len(fake),
        floor=spread.floor,
        features=by.name,
        meaning="sees means and covariances alone; biased upwards by few samples, as the number of real data shows",
    )
