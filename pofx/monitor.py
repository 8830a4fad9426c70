"""Watches a training: what a model's held-out examples show to be wrong is told while something can still be done."""

from typing import TYPE_CHECKING

import torch

from pofx.core import Model
from pofx.progress import Display
from pofx.run import Run

if TYPE_CHECKING:
    from pofx.data.dataset import Split

WATCHED = 512
"""Held-out examples that a model is asked about."""


class Monitor:
    """Asks a model for its symptoms: each is told when it comes, and kept in run.json while it stays.

    Arguments:
        model: the averaged one. split: of held-out examples. run: None writes nothing down. speaks: False on all ranks but one.
    """

    def __init__(self, model: Model, split: "Split", run: Run | None, display: Display, *, speaks: bool = True) -> None:
        self.model, self.split, self.run, self.display, self.speaks = model, split, run, display, speaks
        self.symptoms: dict[str, str] = {}

    @torch.no_grad()
    def look(self) -> None:
        """Between two moves."""
        found = dict(
            self.model.symptoms(next(self.split.batches(WATCHED, window=self.model.window, device=self.model.device, limit=WATCHED)))
        )
        for name in found.keys() - self.symptoms.keys():
            if self.speaks:
                self.display.warn(f"{name}: {found[name]}")
        self.symptoms = found
        if self.run is not None and self.run.info.get("symptoms", {}) != found:
            self.run.update(symptoms=found)
