"""How samples come to be: the same ones at every stage, from the first to the last."""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from pofx import examples, figures
from pofx.core import Model, Noise, Trajectory
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs = (Trajectory,)

#: Samples in the picture, and in a row and in all of the film; frames for which a stage stands, and that lead to the next one.
SHOWN, ACROSS, FILMED, HELD, BETWEEN = 8, 6, 24, 4, 4


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row a stage. Raises `UsageError` for data without images."""
    frames = stages(model, SHOWN, seed)
    names = [f"stage {i}" for i in range(1, len(frames) + 1)]
    return figures.picture(grid(frames.flatten(0, 1), SHOWN, gap=figures.GAP), "the same samples at every stage", rows=names)


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Iterator[Figure]:
    """Every stage stands for some frames, and fades into the next one."""
    frames = stages(model, FILMED, seed)
    for i in range(len(frames)):
        following = frames[min(i + 1, len(frames) - 1)]
        shares = [0.0] * HELD + [step / (BETWEEN + 1) for step in range(1, BETWEEN + 1)] * (i + 1 < len(frames))
        for share in shares:
            image = grid(torch.lerp(frames[i], following, share), ACROSS, gap=figures.GAP)
            # As wide in every frame.
            yield figures.picture(image, f"samples, stage {i + 1} of {len(frames)}")


def stages(model: Model, n: int, seed: int) -> Float[Tensor, "frames n channels height width"]:
    """Of n samples, a function of the seed."""
    figures.images_only(model, "growth")
    with examples.asking(model):
        return cast(Trajectory, model).trajectory(n, noise=Noise(seed, n, device=model.device)).cpu()
