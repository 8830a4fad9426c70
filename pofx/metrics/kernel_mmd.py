"""Unbiased squared maximum mean discrepancy between two sets of features under Gaussian kernels of several widths."""

import numpy as np
from jaxtyping import Float

#: Widths of the kernels, as multiples of the median distance between real examples.
WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


def kernel_mmd(real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), k the mean of Gaussian kernels; 0 in expectation for equal distributions,
    so that it may come out below 0. Unlike a Fréchet distance it sees more than means and covariances.

    Raises `ValueError` for fewer than two rows.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html
    """
    x, y = (np.asarray(rows, dtype=np.float64) for rows in (real, fake))
    if min(len(x), len(y)) < 2:
        raise ValueError("at least two rows of each set are needed")

    def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)

    within = squared(x, x)
    # The width is set by the real examples alone, so that numbers of several models can be compared.
    median = float(np.median(within[np.triu_indices(len(x), 1)])) or 1.0

    def kernel(distance: np.ndarray) -> np.ndarray:
        return np.mean([np.exp(-distance / (2 * width**2 * median)) for width in WIDTHS], axis=0)

    def off_diagonal(distance: np.ndarray) -> float:
        n = len(distance)
        # k(x, x) = 1; an example is not its own neighbour.
        return float((kernel(distance).sum() - n) / (n * (n - 1)))

    return off_diagonal(within) + off_diagonal(squared(y, y)) - 2 * float(kernel(squared(x, y)).mean())
