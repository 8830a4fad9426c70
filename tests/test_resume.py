"""A run that is killed with SIGKILL anywhere and resumed ends bit for bit as the run that was never killed."""

import json
import random
import signal

import kill
import pytest
import resume

from pofx import checkpoint
from pofx.cli import main

NAMES = kill.trained_models()


def arguments(name, folder, run, accumulate=1):
    # A model without players reads the text once: in small windows, so that it takes a few batches.
    few = [] if players(name, folder) else ["--model.window", "16"]
    return kill.arguments(name, folder, run, *few, accumulate=accumulate)


def straight(name, folder, *, accumulate):
    """The hashes of the uninterrupted run."""
    run = folder / f"straight-{accumulate}"
    assert main(arguments(name, folder, run, accumulate)) == 0
    return kill.hashes(run)


def players(name, folder):
    """The names of the players of a model on the tiny data."""
    return [player.name for player in kill.tiny(name, folder).players()]


def late(name, folder):
    """A move of the last player, past the middle of its span."""
    start, stop = kill.tiny(name, folder).players()[-1].span
    return int(0.6 * (stop - start) * kill.ROUNDS)


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_equals_straight(name, tmp_path):
    names = players(name, tmp_path)
    # In the middle of writing a checkpoint; in the last player's late move; between the halves of an accumulated batch, which the soak
    # does to every model.
    points = [("save:12", 1), (f"loss:{names[-1]}:{late(name, tmp_path)}" if names else "fit:8", 1)]
    if name in ("gan", "vae"):
        points.append((f"loss:{names[0]}:12", 2))
    expected = {accumulate: straight(name, tmp_path, accumulate=accumulate) for accumulate in {accumulate for _, accumulate in points}}
    clocks = []
    for number, (point, accumulate) in enumerate(points):
        run = tmp_path / f"killed-{number}"
        argv = arguments(name, tmp_path, run, accumulate)
        died = kill.child(point, argv)
        assert died.returncode == -signal.SIGKILL, f"{point}: {died.stderr}"
        clocks.append(max(checkpoint.steps(run / "checkpoints"), default=0))
        assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
        assert kill.hashes(run) == expected[accumulate], point
        assert not [entry for entry in (run / "checkpoints").iterdir() if entry.name.startswith(".")]
    assert max(clocks) > 0, "no resume began above 0"


@pytest.mark.parametrize("name", NAMES)
def test_the_soak_has_points_in_every_model_that_its_training_reaches(name, tmp_path):
    places = resume.calls(name, tmp_path)
    assert [place for place, _ in places] == [f"loss:{player}" for player in players(name, tmp_path)] or ["fit"]
    found, often = resume.points(places, 60, random.Random(0)), dict(places)
    assert len(found) == 60
    for point, accumulate in found:
        place, _, number = point.rpartition(":")
        assert place == "save" or 1 <= int(number) <= accumulate * often[place]
        # The second half of a batch.
        assert accumulate == 1 or int(number) % 2 == 0
    assert {place for place, _ in places} <= {point.rpartition(":")[0] for point, _ in found}


def test_the_soak_writes_what_it_found_model_by_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resume, "RESULTS", tmp_path / "resume.json")
    monkeypatch.setattr(
        resume, "measure", lambda name, kills, folder: {"kills": kills, "equal": kills, "clock above 0": 1} | {"ngram": {}}[name]
    )
    monkeypatch.setattr("sys.argv", ["resume.py", "ngram", "other", "--kills", "3"])
    with pytest.raises(KeyError):
        resume.main()
    assert list(json.loads((tmp_path / "resume.json").read_text())) == ["ngram"]


PLAYERS = ("discriminator", "generator")
SWITCHES = {
    "phase-epochs": 0.5, "architecture": "residual", "channels": 8, "spectral-norm": "true", "minibatch-std": 4, "attention": "true",
    "relativistic": "true", "gamma-fake": 0.1, "wgan-gp": 1.0, "dragan": 1.0, "augment": "shift",
}  # fmt: skip


def test_a_game_with_all_switches_is_resumed_in_each_phase(tmp_path):
    flags = [text for name, value in SWITCHES.items() for text in (f"--model.{name}", str(value))]
    run = tmp_path / "straight"
    assert main(kill.arguments("gan", tmp_path, run, *flags, rounds=2)) == 0
    expected = kill.hashes(run)
    # Phases of four moves: moves 5 to 8 are the generator's, 9 to 12 the discriminator's; saved after 5, 10, ...
    for number, (point, clock) in enumerate([("loss:generator:3", 5), ("loss:discriminator:8", 10)]):
        run = tmp_path / f"killed-{number}"
        died = kill.child(point, kill.arguments("gan", tmp_path, run, *flags, rounds=2))
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert max(checkpoint.steps(run / "checkpoints")) == clock
        assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
        assert kill.hashes(run) == expected, point


def test_a_game_of_three_is_resumed_in_the_move_of_the_middle_player(tmp_path):
    assert players("vae_gan", tmp_path) == ["encoder", "decoder", "discriminator"]
    expected = straight("vae_gan", tmp_path, accumulate=1)
    run = tmp_path / "killed"
    died = kill.child("loss:decoder:7", kill.arguments("vae_gan", tmp_path, run))
    assert died.returncode == -signal.SIGKILL, died.stderr
    # Its seventh move is the twentieth of all; the third checkpoint, after move 15, is the end of a round.
    assert max(checkpoint.steps(run / "checkpoints")) == 15
    assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
    assert kill.hashes(run) == expected
    # After move 10 the middle player is the next one.
    again = tmp_path / "again"
    died = kill.child("loss:decoder:5", kill.arguments("vae_gan", tmp_path, again))
    assert max(checkpoint.steps(again / "checkpoints")) == 10
    assert main(["train", "--run", str(again), "--resume", "--quiet"]) == 0
    assert kill.hashes(again) == expected


def test_a_run_without_a_checkpoint_resumes_from_the_start(tmp_path):
    name = NAMES[0]
    expected = straight(name, tmp_path, accumulate=1)
    run = tmp_path / "killed"
    died = kill.child(f"loss:{players(name, tmp_path)[0]}:2", kill.arguments(name, tmp_path, run))
    assert died.returncode == -signal.SIGKILL
    assert checkpoint.steps(run / "checkpoints") == []
    assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
    assert kill.hashes(run) == expected


def lines(folder):
    """The lines of metrics.jsonl without the clock on the wall."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_metrics_are_those_of_the_straight_run(tmp_path):
    name = NAMES[0]
    straight(name, tmp_path, accumulate=1)
    run = tmp_path / "killed"
    kill.child(f"loss:{players(name, tmp_path)[0]}:6", kill.arguments(name, tmp_path, run))
    assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
    assert lines(run) == lines(tmp_path / "straight-1")


def test_long_phases_have_lines_in_their_midst_which_a_kill_leaves_alone(tmp_path):
    small = ["--model.phase-epochs", "16", "--model.architecture", "dense", "--model.hidden", "8", "--model.latent-dim", "4"]
    run = tmp_path / "straight"
    assert main(kill.arguments("gan", tmp_path, run, *small, rounds=1)) == 0
    expected, whole = kill.hashes(run), lines(run)
    told = {player: [line["step"] for line in whole if f"{player}/total" in line or f"{player}/adversarial" in line] for player in PLAYERS}
    moves = max(told["generator"])
    assert told["discriminator"][:2] == [50, 100]
    assert told["generator"][-1] == moves
    assert [step for step in told["generator"] if step % 50 == 0] == [150, 200]
    # After a line of a phase, and before the next one: both stand there once.
    for number, point in enumerate(("loss:discriminator:88", "loss:generator:42")):
        run = tmp_path / f"killed-{number}"
        died = kill.child(point, kill.arguments("gan", tmp_path, run, *small, rounds=1))
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
        assert kill.hashes(run) == expected, point
        assert lines(run) == whole, point


def test_a_player_that_moves_alone_has_its_lines(tmp_path):
    run = tmp_path / "run"
    assert main(kill.arguments("vq_vae", tmp_path, run)) == 0
    told = [line["step"] for line in lines(run) if "autoencoder/reconstruction" in line]
    # In the round in which the other one begins, there is one line of both.
    assert told == [*range(1, len(told)), len(told) + 1]
    assert len(told) > kill.ROUNDS // 2
