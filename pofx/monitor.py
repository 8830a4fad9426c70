"""Watches a training: what a model's held-out examples and its game show to be wrong is told while something can still be done."""

import math
from typing import TYPE_CHECKING

import torch

from pofx import distributed, examples, health, recovery
from pofx.core import Batch
from pofx.guard import Diverged

if TYPE_CHECKING:
    from pofx.data.dataset import Split
    from pofx.trainer import Trainer

WATCHED = 512
"""Held-out examples that a model is asked about, at most: in a short training as few as a validation reads."""


class Monitor:
    """Asks a model for its symptoms and looks at its game: each failure is told when it comes, and kept in run.json while it stays.

    Where it is switched off, nothing is asked, told or held against a training.

    Arguments:
        split: of held-out examples.
    """

    def __init__(self, trainer: "Trainer", split: "Split") -> None:
        self.trainer, self.split = trainer, split
        # What was told before a run was stopped is not news.
        self.symptoms: dict[str, str] = dict(trainer.run.info.get("symptoms", {})) if trainer.run is not None else {}
        self._judged: tuple[tuple[int, int], str | None] | None = None
        self._stuck = False
        self._asked = {name: sentence for name, sentence in self.symptoms.items() if name not in health.NAMES}

    @torch.no_grad()
    def look(self) -> None:
        """Asks the averaged model, between two moves."""
        model, trainer = self.trainer.average, self.trainer
        if not trainer.settings.monitor:
            return
        n = min(WATCHED, trainer.affordable())
        # A text is not sorted, and may be shorter than a window; files of other examples often are sorted.
        batch = examples.first(self.split, n, model.window) if self.split.tokens else examples.some(self.split, n)
        label = None if batch.label is None else batch.label.to(trainer.device)
        shown = Batch(batch.x.to(trainer.device), label)
        self._asked = dict(model.symptoms(shown))
        self.tell()
        signs = dict(model.signs(shown))
        if signs or self._asked:
            trainer.write(signs | ({"symptoms": self._asked} if self._asked else {}))

    def watch(self, *, last: bool = False) -> None:
        """Takes the signals of the game, between two moves: where enough has happened since the last time, or at the end."""
        vitals, step = self.trainer.vitals, self.trainer.clock.step
        if vitals is None or not (vitals.due(step) or (last and vitals.last < step)):
            return
        # A training that stops early has no more looks either.
        signals = vitals.look(step, 1.0 if last else self.trainer.progress)
        self.tell()
        told = {f"health/{name}": value for name, value in signals.items() if name not in ("step", "progress") and math.isfinite(value)}
        self.trainer.write({**told, **({"symptoms": self.symptoms} if self.symptoms else {})})

    def tell(self) -> None:
        """Says what is new among all that is wrong, and keeps it."""
        trainer = self.trainer
        found = {**self._asked, **self._diagnosis()}
        for name in sorted(found.keys() - self.symptoms.keys()):
            if trainer.rank == 0:
                trainer.display.warn(f"{name}: {found[name]}")
        self.symptoms = found
        trainer.display.flag(*found)
        if trainer.run is not None and trainer.run.info.get("symptoms", {}) != found:
            trainer.run.update(symptoms=found)

    def _diagnosis(self) -> dict[str, str]:
        vitals = self.trainer.vitals
        return health.diagnose(vitals.history(), self.trainer.clock.rollbacks) if vitals is not None else {}

    @property
    def passed(self) -> bool:
        """Whether the game does not diverge, as it is now; every rank comes to the same decision."""
        return not distributed.agree(int(self._divergence() is not None))

    def _divergence(self) -> str | None:
        vitals, clock = self.trainer.vitals, self.trainer.clock
        if vitals is None:
            return None
        # Between two moves it stays what it was.
        now = (clock.step, len(clock.rollbacks))
        if self._judged is None or self._judged[0] != now:
            fresh = vitals.last != clock.step
            self._judged = (now, health.divergence(vitals.history(), vitals.game()) if fresh else self._looked())
        return self._judged[1]

    def _looked(self) -> str | None:
        """What the last look showed of a divergence."""
        return None if self.trainer.vitals is None else health.explosion(self.trainer.vitals.history())

    def check(self) -> None:
        """Raises `Diverged` where the game diverged at the last look and there is a checkpoint from before it to go back to, one that
        was in order; where there is none it goes on, and the symptom stays."""
        trainer, seen = self.trainer, self._looked()
        if not distributed.agree(int(seen is not None)):
            return
        if distributed.agree(int(self._can_go_back())):
            what = seen or "another rank saw a divergence"
            raise Diverged(f"{what} at move {trainer.clock.step:,}", "a smaller learning rate may help")
        if not self._stuck and trainer.rank == 0:
            trainer.display.warn(
                f"it goes on as it is, since no checkpoint from before the {health.DIVERGES} was in order: --checkpoint-every MOVES "
                "makes more of them"
            )
        self._stuck = True

    def _can_go_back(self) -> bool:
        found, vitals = recovery.passed(self.trainer), self.trainer.vitals
        return found is not None and vitals is not None and found[0] < vitals.last
