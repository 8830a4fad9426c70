"""A game that diverges goes back to its newest checkpoint with half of the learning rate, at most twice, and a kill loses nothing of it."""

import itertools
import json
import os
import signal
import types

import kill
import numpy as np
import pytest

import pofx
from pofx import checkpoint, discovery, health, recovery, trainer
from pofx.cli import main
from pofx.core import TrainingError
from pofx.run import Run

#: A game with a third player whose weight is multiplied by 1 - lr at each move: it explodes from a rate of 2 on.
RUNAWAY = '''
"""Runaway: a game with a third player that explodes where its learning rate is too large."""

import dataclasses

import torch
from torch import nn

from pofx.core import Loss, Optimizer, Player, PositiveFloat
from pofx.models.adversarial.gan import GAN


class Runaway(GAN):
    """A game with a third player.

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    """

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(GAN.Config):
        """Configuration of the runaway."""

        rate: PositiveFloat = 3.0
        """Learning rate of the third player."""

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.weight = nn.Parameter(torch.tensor(1e12))

    def players(self):
        third = Player("runaway", self.grow, (self.weight,), Optimizer(name="sgd", lr=self.config.rate, momentum=0.0))
        return (*super().players(), third)

    def grow(self, batch):
        return Loss({"square": 0.5 * self.weight.square()})
'''
#: The weight is too large to be squared after 25 rounds, and not yet at the checkpoint of the 20th.
ROUNDS, EVERY = 40, 20


@pytest.fixture
def runaway(tmp_path, monkeypatch):
    """The folder of data and of the model."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "runaway.py").write_text(RUNAWAY, encoding="utf-8")
    monkeypatch.setenv("POFX_PATH", str(folder))
    np.save(tmp_path / "points.npy", np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))
    return tmp_path


def arguments(folder, run, *, rate=3.0, every=EVERY, budget=("--steps", str(ROUNDS))):
    return [
        "train", "runaway", "--data", str(folder / "points.npy"), "--run", str(run), *budget, "--checkpoint-every", str(every),
        "--batch-size", "8", "--model.rate", str(rate), "--model.hidden", "8", "--quiet",
    ]  # fmt: skip


def clock(run):
    step = checkpoint.steps(run / "checkpoints")[-1]
    return checkpoint.read(checkpoint.folder(run / "checkpoints", step))[0]["clock"]


def test_what_diverges_goes_back_with_half_of_the_rate_and_ends_well(runaway, capsys):
    run = runaway / "run"
    assert main(arguments(runaway, run)) == 0
    told = capsys.readouterr().err
    assert told.count("warning: divergence") == 1
    assert "went back to move 60" in told
    assert "'runaway'" in told
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["exact"]) == ("finished", True)
    assert "0.5 of its learning rate" in info["symptoms"][health.DIVERGES]
    assert len(clock(run)["rollbacks"]) == 1
    assert clock(run)["step"] == 3 * ROUNDS
    # Rounds are counted as in a run that never diverged, and no line of the part that was given up stays.
    steps = [line["step"] for line in Run.read(run).metrics()]
    assert steps == sorted(steps)
    losses = {line["step"]: line["runaway/square"] for line in Run.read(run).metrics() if "runaway/square" in line}
    values = [losses[step] for step in sorted(losses)]
    assert len(values) >= ROUNDS
    peak = int(np.argmax(values))
    assert sorted(losses)[peak] == 60 + 3
    assert all(b < a for a, b in zip(values[peak:], values[peak + 1 :], strict=False))
    assert "While training, divergence" in (run / "report.html").read_text()


def test_after_two_rollbacks_training_ends_and_keeps_what_was_saved(runaway, capsys):
    run = runaway / "run"
    assert main(arguments(runaway, run, rate=13.0, every=3)) == 1
    told = capsys.readouterr().err
    assert "went back 2 times, to 0.25 of its learning rate" in told
    assert str(run) in told.splitlines()[-1]
    assert json.loads((run / "run.json").read_text())["status"].startswith("failed")
    assert len(clock(run)["rollbacks"]) == recovery.ROLLBACKS
    assert pofx.load(run).sample is not None


def test_without_a_checkpoint_it_ends_as_any_other(runaway, capsys):
    assert main(arguments(runaway, runaway / "run", every=1000)) == 1
    assert "not finite" in capsys.readouterr().err


def test_a_game_whose_checkpoints_all_failed_goes_on(runaway, monkeypatch, capsys):
    seen = []

    def divergence(records, now):
        seen.append(now)
        return "logits have grown to 1,000"

    monkeypatch.setattr(health, "divergence", divergence)
    run = runaway / "run"
    assert main(arguments(runaway, run, rate=0.1, every=30)) == 0
    assert len(seen) > 3
    assert clock(run)["rollbacks"] == []
    assert clock(run)["passed"] is False
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def test_unwatched_it_ends_as_any_other(runaway, capsys):
    run = runaway / "run"
    assert main([*arguments(runaway, run), "--monitor", "false"]) == 1
    assert "not finite" in capsys.readouterr().err
    assert clock(run)["rollbacks"] == []


def test_in_memory_it_ends_as_any_other(runaway):
    model = discovery.model("runaway")
    from pofx import data
    from pofx.settings import Settings
    from pofx.trainer import Trainer

    dataset = data.load(str(runaway / "points.npy"))
    with pytest.raises(TrainingError, match="not finite"):
        Trainer(model(dataset.spec, model.Config(hidden=(8,))), dataset, Settings(steps=ROUNDS, batch_size=8, ema=0.9)).train()


def test_under_minutes_it_goes_back_and_ends_in_time(runaway, monkeypatch):
    readings = itertools.count()
    # A clock of which every reading takes 5 ms: minutes that do not depend on the machine.
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(perf_counter=lambda: 0.005 * next(readings)))
    run = runaway / "run"
    assert main(arguments(runaway, run, every=60, budget=("--minutes", "0.1"))) == 0
    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "finished"
    assert len(clock(run)["rollbacks"]) == 1
    assert 6.0 <= info["seconds"] < 6.1
    seconds = [line["seconds"] for line in Run.read(run).metrics()]
    assert seconds == sorted(seconds)


# Before the rollback and after it; before the two renames that put its commit in the place of a checkpoint, and between them.
POINTS = ("loss:runaway:22", "loss:generator:35", "rollback:7", "rollback:8")


def test_killed_around_a_rollback_and_resumed_equals_straight(runaway):
    straight = runaway / "straight"
    assert main(arguments(runaway, straight)) == 0

    def lines(folder):
        return [{key: value for key, value in line.items() if key != "seconds"} for line in Run.read(folder).metrics()]

    committed = []
    for number, point in enumerate(POINTS):
        run = runaway / f"killed-{number}"
        died = kill.child(point, arguments(runaway, run), POFX_PATH=os.environ["POFX_PATH"])
        assert died.returncode == -signal.SIGKILL, f"{point}: {died.stderr}"
        checkpoint.sweep(run / "checkpoints")
        committed.append(len(clock(run)["rollbacks"]))
        assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
        assert kill.hashes(run) == kill.hashes(straight), point
        assert not [entry for entry in (run / "checkpoints").iterdir() if entry.name.startswith(".")]
        assert lines(run) == lines(straight), point
    # The commit stands from the moment on in which the old checkpoint is out of its way.
    assert committed == [0, 1, 0, 1]
