"""What a discriminator sees: real and generated examples, and the same as they are changed before it judges them."""

from typing import Any, cast

import torch
from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Judges, Model, Samples, mix
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

needs, kinds = (Samples, Judges), ("images",)
wants = "a model that changes what its discriminator sees (--model.augment)"

SHOWN = 12
#: The strength that is shown where an adaptive one is still next to nothing.
PREVIEW, LEAST = 0.5, 0.01


def fits(model: Model) -> bool:
    """Whether the model changes anything."""
    augmentation = getattr(model, "augmentation", None)
    return augmentation is not None and bool(augmentation.changes)


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """Four rows, with the changes as often as the run makes them at this checkpoint, or in half of the images if it makes next to
    none yet."""
    augmentation = cast(Any, model).augmentation
    real = examples.some(dataset.train, SHOWN, seed=seed).x
    made = examples.draw(model, len(real), seed=seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(mix(seed, "augmentation"))
        # The strength belongs to the training: a model that was loaded does not know it.
        now = float(augmentation.strength if run is None else run.training_state()["augmentation.strength"])
        strength = now if now >= LEAST else PREVIEW
        shown = [real, augmentation.changed(real, strength), made, augmentation.changed(made, strength)]
    title = f"what the discriminator sees: {', '.join(augmentation.changes)}, each in {strength:.0%} of the images"
    if now < LEAST:
        title += " (a preview: by now it sees nearly all of them as they are)"
    names = ("training", "as seen", "generated", "as seen")
    return figures.picture(grid(torch.cat(shown).clamp(0, 1), len(real), gap=figures.GAP), title, run, rows=names)
