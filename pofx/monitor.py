"""Watches a training: what a model's held-out examples show to be wrong is told while something can still be done."""

from typing import TYPE_CHECKING

import torch

from pofx import examples
from pofx.core import Batch, Model
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
        # What was told before a run was stopped is not news.
        self.symptoms: dict[str, str] = dict(run.info.get("symptoms", {})) if run is not None else {}

    @torch.no_grad()
    def look(self) -> None:
        """Between two moves."""
        # A text is not sorted, and may be shorter than a window; files of other examples often are sorted.
        batch = examples.first(self.split, WATCHED, self.model.window) if self.split.tokens else examples.some(self.split, WATCHED)
        label = None if batch.label is None else batch.label.to(self.model.device)
        found = dict(self.model.symptoms(Batch(batch.x.to(self.model.device), label)))
        for name in found.keys() - self.symptoms.keys():
            if self.speaks:
                self.display.warn(f"{name}: {found[name]}")
        self.symptoms = found
        if self.run is not None and self.run.info.get("symptoms", {}) != found:
            self.run.update(symptoms=found)
