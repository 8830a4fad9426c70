"""Coloured shapes drawn from known factors of variation, for measuring whether a code keeps them apart.

3 x 6 x 8 x 8 x 8 x 6 = 55,296 images, of which the seed draws 20,000 to train, 2,000 to validate and 5,000 to test: none
is in two parts, and every combination of values is equally likely.

References:
    dSprites: Disentanglement Testing Sprites Dataset (Matthey, Higgins, Hassabis and Lerchner, 2017),
    https://github.com/google-deepmind/dsprites-dataset
"""

import colorsys
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from pofx.core import UsageError, mix
from pofx.data import arrays, images
from pofx.data.dataset import Dataset, Factors
from pofx.data.labels import from_array
from pofx.data.options import Request
from pofx.data.splits import divide

NAMES = {"sprites": "27,000 shapes, 32x32 colour, drawn from 6 known factors; 3 classes"}
PARTS = (20_000, 2_000, 5_000)
SIDE = 32
#: Points for each pixel along each axis.
POINTS = 8
#: Largest distance of a shape's edge from its centre of mass, in pixels; a window of twice the largest holds every shape.
RADII = np.linspace(5, 9, 6)
WINDOW = 18
#: Pixels between the left ends (or upper ends) of the window at neighbouring positions.
STRIDE = 2


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    head = (y > 0) & (np.abs(x) < 0.85 * (1 - y))
    return head | ((y > -1) & (y <= 0) & (np.abs(x) < 0.3))


def _drop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The piriform curve, with its tip at (0, 1).
    along = ((1 - y) / 2).clip(0, 1)
    return x**2 < 3 * along**3 * (1 - along)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # An algebraic curve of sixth order.
    x, y = 1.25 * x, 1.25 * y
    return (x**2 + y**2 - 1) ** 3 < x**2 * y**3


#: Which points of the plane a shape covers, within [-1, 1]^2; in the order of class names.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"arrow": _arrow, "drop": _drop, "heart": _heart}
#: The factors and how many values each has.
FACTORS = {"shape": len(SHAPES), "scale": len(RADII), "rotation": 8, "position x": 8, "position y": 8, "colour": 6}


def matches(path: pathlib.Path) -> bool:
    """No file is read here."""
    return False


@functools.cache
def _stencils() -> Float[np.ndarray, "shape scale rotation window window"]:
    """The share of each pixel that a shape covers; its centre of mass is the middle of the window."""
    fine = (np.arange(400) + 0.5) / 200 - 1
    x, y = np.meshgrid(fine, fine)
    place = (np.arange(WINDOW * POINTS) + 0.5) / POINTS - WINDOW / 2
    right, down = np.meshgrid(place, place)
    found = np.zeros((*list(FACTORS.values())[:3], WINDOW, WINDOW))
    for i, covers in enumerate(SHAPES.values()):
        inside = covers(x, y)
        centre_x, centre_y = x[inside].mean(), y[inside].mean()
        reach = np.hypot(x[inside] - centre_x, y[inside] - centre_y).max()
        for j, radius in enumerate(RADII):
            for k in range(FACTORS["rotation"]):
                angle, unit = 2 * math.pi * k / FACTORS["rotation"], reach / radius
                # Clockwise as a person sees it; rows of an image run downwards.
                turned_x = math.cos(angle) * right + math.sin(angle) * down
                turned_y = math.sin(angle) * right - math.cos(angle) * down
                covered = covers(unit * turned_x + centre_x, unit * turned_y + centre_y)
                found[i, j, k] = covered.reshape(WINDOW, POINTS, WINDOW, POINTS).mean((1, 3))
    return found


def draw(values: Int64[np.ndarray, "n factors"]) -> UInt8[np.ndarray, "n 3 32 32"]:
    """The images of factor values, each from 0 to below its size, in the order of `FACTORS`: one colour of full value on
    black. Raises `UsageError` for other values."""
    values = np.asarray(values)
    sizes = tuple(FACTORS.values())
    if values.ndim != 2 or values.shape[1] != len(sizes) or values.dtype.kind not in "iu":
        raise UsageError(f"factor values must be integers of shape (n, {len(sizes)}), not {values.dtype} of shape {values.shape}")
    if len(values) and ((values < 0).any() or (values >= sizes).any()):
        raise UsageError(f"factor values run from 0 to below {sizes} for {', '.join(FACTORS)}: give such")
    shape, scale, rotation, left, top, colour = values.T
    rows = STRIDE * top[:, None, None] + np.arange(WINDOW)[None, :, None]
    columns = STRIDE * left[:, None, None] + np.arange(WINDOW)[None, None, :]
    canvas = np.zeros((len(values), SIDE, SIDE), dtype=np.float32)
    canvas[np.arange(len(values))[:, None, None], rows, columns] = _stencils()[shape, scale, rotation]
    hues = range(FACTORS["colour"])
    palette = np.array([colorsys.hsv_to_rgb(hue / len(hues), 0.8, 1.0) for hue in hues], dtype=np.float32)
    pictures = np.empty((len(values), 3, SIDE, SIDE), dtype=np.uint8)
    for channel in range(3):
        pictures[:, channel] = (255 * palette[colour, channel, None, None] * canvas).round()
    return pictures


def load(request: Request) -> Dataset:
    """The drawn images, the name of the shape as label, and the factors where the data are read as images."""
    sizes = tuple(FACTORS.values())
    order = np.random.default_rng(mix(request.seed, "sprites")).permutation(math.prod(sizes))[: sum(PARTS)]
    values = np.stack(np.unravel_index(order, sizes), 1)
    names = np.array(list(SHAPES))[values[:, 0]]
    dataset = arrays.build(request, draw(values), from_array(names), own=PARTS)
    if dataset.spec.kind != "images":
        return dataset
    size, fit = dataset.spec.shape[1:], request.options.fit

    def render(values: Int64[np.ndarray, "n factors"]) -> Float[Tensor, "n channels height width"]:
        seen = images.resize(torch.from_numpy(draw(values)), size, fit)
        return seen.to(torch.float32).mul_(1 / 255)

    rows = divide(len(values), PARTS, request.options.validation, request.seed)
    parts = {name: None if of is None else values[of.numpy()] for name, of in rows._asdict().items()}
    return dataclasses.replace(dataset, factors=Factors(tuple(FACTORS), sizes, render=render, **parts))
