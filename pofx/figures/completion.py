"""Held-out images of which a part is given, and several ways to fill in the rest; as a film, while they are filled."""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from pofx import examples, figures, masks
from pofx.core import Completes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs, kinds, one_way = (Completes,), ("images",), True

#: Images, and completions of each.
IMAGES, EACH = 8, 6
#: What stands for a pixel that is not there (yet).
MISSING = 0.5


def strips(
    x: Float[Tensor, "n channels height width"],
    keep: Bool[Tensor, "channels height width"],
    result: Float[Tensor, "n each channels height width"],
) -> Float[Tensor, "images channels height width"]:
    """Rows of an image, of what is given of it, and of its completions."""
    given = torch.where(keep, x, MISSING)
    return torch.cat((x[:, None], given[:, None], result), 1).flatten(0, 1)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0, mask: str | None = None) -> Figure:
    """The first held-out images.

    Arguments:
        mask: what is given: top, bottom, left, right, or a picture file whose bright pixels are. None: top.
    """
    x, keep, result, part = _completed(model, dataset, seed, mask)
    return _show(run, x, keep, result, f"{part} images, what is given of them, and completions")


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0, mask: str | None = None) -> Iterator[Figure]:
    """One frame for each row that is filled, from the top; knobs as for `draw`. Raises `UsageError` for a model that does not draw
    in this order, too."""
    if not cast(Completes, model).in_order:
        raise UsageError(f"this {type(model).__name__} does not fill images in row after row, so that there is no film: plot a .png")
    x, keep, result, part = _completed(model, dataset, seed, mask)
    height = x.shape[2]
    row = torch.arange(height)[:, None]
    for done in range(height + 1):
        if done and bool(keep[:, done - 1].all()):
            continue
        yield _show(run, x, keep, torch.where(keep | (row < done), result, MISSING), f"{part} images, filled in row after row")


def _completed(model: Model, dataset: Dataset, seed: int, mask: str | None) -> tuple[Tensor, Tensor, Tensor, str]:
    part, held = examples.held_out(dataset)
    # Files are often sorted.
    x = examples.some(held, IMAGES, seed=seed).x
    keep = masks.mask(model.spec, mask)
    return x, keep, examples.complete(model, x, keep, each=EACH, seed=seed), part


def _show(run: Run | None, x: Tensor, keep: Tensor, result: Tensor, title: str) -> Figure:
    names = ("image", "given", *(str(i + 1) for i in range(EACH)))
    return figures.picture(grid(strips(x, keep, result), len(names)), title, run, columns=names)
