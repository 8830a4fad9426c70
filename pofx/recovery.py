"""Going back: what a checkpoint holds of a training, resuming from one, and rolling back to one when training diverges."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pofx import checkpoint, distributed, optim
from pofx.clock import Clock
from pofx.core import Judges, Samples, TrainingError
from pofx.guard import Diverged

if TYPE_CHECKING:
    from pofx.trainer import Trainer

ROLLBACKS = 2
"""Times that a diverging training goes back, each time with half of the learning rate."""


def training_state(trainer: "Trainer") -> dict[str, Tensor]:
    """What training needs and sampling does not: optimizers, buffers that the weights do not hold, what the monitor has seen."""
    persistent = set(trainer.model.state_dict())
    state = {f"buffer/{name}": value for name, value in trainer.model.named_buffers() if name not in persistent}
    for player, optimizers in zip(trainer.players, trainer.optimizers, strict=True):
        state |= {f"optimizer/{player.name}/{name}": value for name, value in optim.state(optimizers).items()}
    if trainer.vitals is not None:
        state |= {f"vitals/{name}": value for name, value in trainer.vitals.state().items()}
    return state


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _sound(trainer: "Trainer") -> Iterator[tuple[int, dict[str, Any], dict[str, dict[str, Tensor]]]]:
    """Step, description and tensors of each checkpoint that is not damaged, newest first; damaged ones are named."""
    assert trainer.run is not None
    for step in reversed(checkpoint.steps(trainer.run.checkpoints)):
        try:
            yield step, *checkpoint.read(checkpoint.folder(trainer.run.checkpoints, step))
        except checkpoint.Damaged as error:
            trainer.display.warn(f"{error}; using the checkpoint before it")


def passed(trainer: "Trainer") -> tuple[int, dict[str, Any], dict[str, dict[str, Tensor]]] | None:
    """The newest sound checkpoint that the monitor passed; None where there is none."""
    if trainer.run is None:
        return None
    return next((found for found in _sound(trainer) if found[1]["clock"].get("passed", True)), None)


def _restore(trainer: "Trainer", description: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Makes a training what it was when a checkpoint was saved."""
    assert trainer.run is not None
    trainer.forget()
    clock = Clock(**description["clock"])
    if clock.best_step is not None and clock.best_step not in checkpoint.steps(trainer.run.checkpoints):
        clock.best = clock.best_step = None
    checkpoint.restore(trainer.model, tensors[checkpoint.WEIGHTS], resizable=trainer.model.resizable)
    checkpoint.restore(trainer.average, tensors[checkpoint.AVERAGE], resizable=trainer.model.resizable)
    state = tensors[checkpoint.TRAINING]
    buffers = _part(state, "buffer/")
    for name, buffer in trainer.model.named_buffers():
        if (value := buffers.get(name)) is not None:
            buffer.resize_(value.shape).copy_(value)
    for player, optimizers in zip(trainer.players, trainer.optimizers, strict=True):
        for optimizer in optimizers:
            optimizer.state.clear()
        optim.restore(optimizers, _part(state, f"optimizer/{player.name}/"))
    if trainer.vitals is not None:
        trainer.vitals.restore(_part(state, "vitals/"))
    trainer.clock = clock


def resume(trainer: "Trainer") -> int:
    """Goes on from the newest sound checkpoint, naming damaged ones; returns its step, 0 where there is none."""
    assert trainer.run is not None
    checkpoint.sweep(trainer.run.checkpoints)
    for step, description, tensors in _sound(trainer):
        _restore(trainer, description, tensors)
        trainer.run.truncate_metrics(step)
        trainer.run.update(last=step, best=trainer.clock.best_step)
        if trainer.rounds != description["rounds"]:
            trainer.display.say(
                f"the budget changed ({description['rounds'] or 'minutes'} to {trainer.rounds or 'minutes'} rounds): schedules go on "
                f"from {trainer.progress:.0%} of the new one"
            )
        return step
    trainer.run.truncate_metrics(0)
    trainer.run.update(last=None, best=None)
    return 0


def roll_back(trainer: "Trainer", error: Diverged) -> None:
    """Takes a training that diverged back to the newest checkpoint that the monitor passed, with half of the learning rate.

    What was seen, and so the number of rollbacks and the rate, is committed in the place of that checkpoint before anything
    else happens: a kill in between loses nothing. The seconds that were spent stay spent.
    Raises `error` where there is nothing to go back to or nobody watches, and `TrainingError` where training has gone back often enough.
    """
    run, spent = trainer.run, trainer.seconds
    if run is None or not trainer.settings.monitor or not {Judges, Samples} <= trainer.model.capabilities:
        raise error
    if len(trainer.clock.rollbacks) >= ROLLBACKS:
        raise TrainingError(
            f"{error.what}, after training went back {ROLLBACKS} times, to {trainer.clock.factor:g} of its learning rate: the last good "
            f"checkpoint is {run.path}@{run.info['last']}; start again with a smaller learning rate or a stronger penalty"
        ) from error
    found = passed(trainer)
    if found is None:
        raise error
    step, description, tensors = found
    rollbacks = [*trainer.clock.rollbacks, f"{error.what}, and training went back to move {step:,}"]
    _restore(trainer, description, tensors)
    trainer.clock = dataclasses.replace(trainer.clock, rollbacks=rollbacks, seconds=max(spent, trainer.clock.seconds))
    distributed.barrier()
    if trainer.rank == 0:
        trainer.commit()
        for later in checkpoint.steps(run.checkpoints):
            if later > step:
                checkpoint.remove(run.checkpoints, later)
    run.truncate_metrics(step)
    # Where the wall clock says when to save, it says where to go back to.
    run.update(last=step, best=trainer.clock.best_step, exact=run.info["exact"] and trainer.settings.interval[0] is not None)
