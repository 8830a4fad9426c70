"""How samples grew: the same ones as they were drawn at the end of every size, kept while the model was trained, and now."""

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pofx import examples, figures
from pofx.core import Model, Samples, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import apart, grid
from pofx.run import PICTURED, SAMPLES, Run

needs, kinds, wants, one_way = (Samples,), ("images",), "a model that grows", True

#: Samples in the picture, and in a row and in all of the film; frames for which a size stands, and that lead to the next one.
SHOWN, ACROSS, FILMED, HELD, BETWEEN = 8, 6, 24, 4, 4


def fits(model: Model) -> bool:
    """Whether the model grows."""
    return bool(model.milestones)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row a size. Raises `UsageError` for a model without its run."""
    names, frames = stages(model, run, SHOWN)
    return figures.picture(grid(frames.flatten(0, 1), SHOWN, gap=figures.GAP), "the same samples while they grew", run, rows=names)


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Iterator[Figure]:
    """Every size stands for some frames, and fades into the next one."""
    names, frames = stages(model, run, FILMED)
    for i, name in enumerate(names):
        following = frames[min(i + 1, len(frames) - 1)]
        shares = [0.0] * HELD + [step / (BETWEEN + 1) for step in range(1, BETWEEN + 1)] * (i + 1 < len(frames))
        for share in shares:
            image = grid(torch.lerp(frames[i], following, share), ACROSS, gap=figures.GAP)
            # As wide in every frame.
            yield figures.picture(image, f"samples, {name.replace(chr(10), ', ')}", run)


def stages(model: Model, run: Run | None, n: int) -> tuple[list[str], Tensor]:
    """Names, and the first n samples of the run at each of its milestones and at its checkpoint, (frames, n, channels, height, width)."""
    if run is None:
        raise UsageError("the figure growth is read from the run that a model grew in: give it")
    passed = run.milestones()
    names = [f"{name}\nmove {step:,}" for step, name in passed.items()] + [f"now\nmove {run.step:,}"]
    frames = [_kept(run, step, (model.spec.shape[1], model.spec.shape[2]))[:n] for step in passed]
    # The same codes as in the pictures.
    return names, torch.stack([*frames, examples.draw(model, n, seed=run.info["seed"])])


def _kept(run: Run, step: int, size: tuple[int, int]) -> Tensor:
    from PIL import Image

    path = run.path / SAMPLES / f"{step:09d}.png"
    try:
        with Image.open(path) as image:
            return apart(np.asarray(image), size, PICTURED)
    except OSError as error:
        raise UsageError(f"the figure growth needs {path}, which was drawn in training, and it cannot be read") from error
