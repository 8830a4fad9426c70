"""A benchmark's minutes are those of an idle machine."""

import dataclasses

import idle
import pytest
from idle import IDLE, budget

from pofx import data, discovery


def test_an_idle_machine_goes_by_the_clock_and_a_busy_one_by_recorded_rounds():
    assert budget(10, 500, IDLE) == {"minutes": 10}
    assert budget(10, 500, IDLE - 1) == {"steps": 500}
    with pytest.raises(SystemExit, match="busy"):
        budget(10, None, IDLE - 1)


def by_minutes(monkeypatch):
    """The recipe of `gan` with another config, batch and average where minutes are its budget."""
    cls = discovery.model("gan")
    recipe = cls.recipe

    def patched(spec, amount):
        chosen = recipe(spec, amount)
        if amount is None or amount.minutes is None:
            return chosen
        return dataclasses.replace(chosen, config=dataclasses.replace(chosen.config, channels=3), batch_size=7, ema=0.9)

    monkeypatch.setattr(cls, "recipe", patched)


@pytest.mark.parametrize("record", [3, {"rounds": 3, "batch_size": 7, "ema": 0.9}])
def test_recorded_rounds_are_those_of_the_recipe_for_minutes(tmp_path, monkeypatch, record):
    by_minutes(monkeypatch)
    dataset = data.load("digits")
    if isinstance(record, dict):
        record["config"] = idle.said("gan", dataset, 10, {"latent_dim": 5})["model_config"].to_json()
    monkeypatch.setattr(idle, "gigaflops", lambda: IDLE - 1)
    run = idle.trained("gan", dataset, tmp_path / "run", 0, 10, record, latent_dim=5)
    assert run.info["exact"]
    assert (run.info["config"]["channels"], run.info["config"]["latent_dim"]) == (3, 5)
    assert (run.info["training"]["steps"], run.info["training"]["batch_size"], run.info["training"]["ema"]) == (3, 7, 0.9)
    row = idle.described(run) | {"by_the_clock": True}
    assert idle.idle_rounds([row, row | {"rounds": 5}]) == {
        "rounds": 4, "config": run.info["config"], "batch_size": 7, "ema": 0.9,
    }  # fmt: skip
    with pytest.raises(SystemExit, match="another configuration"):
        idle.trained("gan", dataset, tmp_path / "other", 0, 10, idle.recorded(row), latent_dim=6)


def test_a_rehearsal_is_of_the_recipe_for_all_its_minutes(monkeypatch):
    by_minutes(monkeypatch)
    dataset = data.load("digits")
    asked = []
    train = idle.pofx.train

    def short(*arguments, minutes, **settings):
        asked.append(minutes)
        return train(*arguments, steps=4, **settings)

    monkeypatch.setattr(idle, "gigaflops", lambda: IDLE)
    monkeypatch.setattr(idle.pofx, "train", short)
    record = idle.rehearsed("gan", dataset, 10, latent_dim=5)
    assert asked == [1.0]
    assert idle.rounds(record) == 40
    assert (record["config"]["channels"], record["config"]["latent_dim"], record["batch_size"], record["ema"]) == (3, 5, 7, 0.9)
