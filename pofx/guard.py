"""Watches over losses and gradients: a run that is no longer finite stops, naming the player, the term and the move."""

import math
from typing import NoReturn

import torch
from torch import Tensor

from pofx import distributed
from pofx.core import Loss, Model, TrainingError
from pofx.run import Run


class Diverged(TrainingError):
    """Training has come to a state that it does not leave: `what` says what was seen, the message where to go on."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


class Guard:
    """Stops a run at a loss or gradient that is not finite.

    On the CPU of one process it looks at once; where a look waits for a device or for other ranks, it takes notes there
    and looks when `check` is called, which is at least before every checkpoint.
    """

    def __init__(self, model: Model, run: Run | None) -> None:
        self.model, self.run = model, run
        self.at_once = model.device.type == "cpu" and distributed.size() == 1
        self._bad: dict[tuple[str, str], Tensor] = {}

    def loss(self, player: str, loss: Loss, total: Tensor, move: int) -> None:
        """Looks at the terms of a loss; `move` is the number that the message gives, from 1."""
        if not self.at_once:
            for name, term in loss.terms.items():
                self._note(player, f"term {name!r}", ~torch.isfinite(term.detach()))
        elif not math.isfinite(total.item()):
            bad = (f"term {name!r}" for name, term in loss.terms.items() if not torch.isfinite(term))
            self._fail(player, next(bad, "total of the loss"), move)

    def gradient(self, player: str, norm: Tensor, move: int) -> None:
        """Looks at the norm of all gradients of a player."""
        if not self.at_once:
            self._note(player, "gradient", ~torch.isfinite(norm))
        elif not math.isfinite(norm.item()):
            named = ((name, p.grad) for name, p in self.model.named_parameters() if p.requires_grad and p.grad is not None)
            bad = (name for name, gradient in named if not bool(torch.isfinite(gradient).all()))
            self._fail(player, f"gradient of {next(bad, 'all parameters')}", move)

    def _note(self, player: str, what: str, bad: Tensor) -> None:
        key = (player, what)
        self._bad[key] = bad if key not in self._bad else self._bad[key] | bad

    def check(self, move: int) -> None:
        """Looks at the notes; every rank comes to the same decision."""
        if self.at_once:
            return
        found = [key for key, bad in self._bad.items() if bool(bad)]
        self._bad.clear()
        if distributed.agree(int(bool(found))):
            self._fail(*(found[0] if found else ("another rank", "loss")), move)

    def _fail(self, player: str, what: str, move: int) -> NoReturn:
        last = self.run.info.get("last") if self.run else None
        kept = (
            f"the last good checkpoint is {self.run.path}@{last}" if self.run and last is not None else "no checkpoint had been saved yet"
        )
        when = "at" if self.at_once else "at or before"
        raise Diverged(
            f"player {player!r}: its {what} is not finite {when} move {move:,}",
            f"{kept}; a smaller learning rate, a clip on the gradient or --precision fp32 may help",
        )
