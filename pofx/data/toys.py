"""Densities in the plane whose truth is known: 50,000 training points drawn from the seed, 10,000 more for each other part.

References:
    Unrolled Generative Adversarial Networks (Metz, Poole, Pfau and Sohl-Dickstein, 2017), https://arxiv.org/abs/1611.02163
"""

import math
import pathlib
from collections.abc import Callable

import numpy as np

from pofx.core import UsageError, mix
from pofx.data import arrays
from pofx.data.dataset import Dataset
from pofx.data.labels import from_array
from pofx.data.options import Request

NAMES = {
    "ring": "8 Gaussians on a circle of radius 2, sigma 0.1; points of the plane, 8 classes",
    "grid": "25 Gaussians on a 5x5 grid of spacing 2, sigma 0.1; points of the plane, 25 classes",
    "checkerboard": "8 uniform squares of side 2 in [-4, 4]^2; points of the plane",
}
MIXTURES = ("ring", "grid")
SIGMA = 0.1
PARTS = (50_000, 10_000, 10_000)


def matches(path: pathlib.Path) -> bool:
    """No file is read here."""
    return False


def modes(name: str) -> np.ndarray:
    """Centres (modes, 2) of the Gaussians of `ring` or `grid`, whose standard deviation is `SIGMA`. Raises `UsageError`
    for a density without modes."""
    if name == "ring":
        angle = np.arange(8) * (2 * math.pi / 8)
        return 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    if name == "grid":
        side = 2.0 * np.arange(-2, 3)
        return np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    raise UsageError(f"{name} has no modes: ring and grid have")


def log_density(name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """log p(x) in nats of points (n, 2) under the truth of a built-in density; None for other data."""
    if name in MIXTURES:
        centres = modes(name)

        def mixture(x: np.ndarray) -> np.ndarray:
            squared = ((np.asarray(x, dtype=np.float64)[:, None] - centres[None]) ** 2).sum(-1)
            return np.logaddexp.reduce(-squared / (2 * SIGMA**2), 1) - math.log(len(centres) * 2 * math.pi * SIGMA**2)

        return mixture
    if name == "checkerboard":
        # 8 squares of area 4; held-out points lie inside.
        return lambda x: np.full(len(x), -math.log(32))
    return None


def load(request: Request) -> Dataset:
    """The points, each with the number of its Gaussian as label where there are some."""
    name, n = request.source, sum(PARTS)
    random = np.random.default_rng(mix(request.seed, name))
    if name == "checkerboard":
        square = random.integers(0, 8, n)
        row, column = square // 2, 2 * (square % 2) + square // 2 % 2
        x = np.stack([column, row], 1) * 2 - 4 + 2 * random.random((n, 2))
        return arrays.build(request, x.astype(np.float32), None, own=PARTS)
    centres = modes(name)
    mode = random.integers(0, len(centres), n)
    x = centres[mode] + SIGMA * random.standard_normal((n, 2))
    return arrays.build(request, x.astype(np.float32), from_array(mode), own=PARTS)
