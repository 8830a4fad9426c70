"""A benchmark's model is that of its minutes, whether the clock ends its training or a number of rounds does; rows are kept seed by seed."""

import json

import pixels
import pytest
import text
from minutes import settings

from pofx import api, discovery
from pofx.core import Budget, DataSpec

TEXT, IMAGES = DataSpec("tokens", (), size=1_000_000, vocabulary=66), DataSpec("images", (1, 28, 28), size=57_000, bits=1)
NETWORKS = [
    *((TEXT, system.model, system.minutes) for system in text.SYSTEMS.values() if system.minutes and not system.hybrid),
    *((IMAGES, system.model, system.minutes) for system in pixels.SYSTEMS.values()),
]


@pytest.mark.parametrize(("spec", "name", "minutes"), NETWORKS)
@pytest.mark.parametrize("budget", [Budget(steps=1), Budget(steps=1_000_000), Budget(minutes=0.01)])
def test_what_is_trained_is_what_the_minutes_ask_for_whoever_counts_them(spec, name, minutes, budget):
    cls = discovery.model(name)
    asked, other = (api.recipe(cls, name, spec, of) for of in (Budget(minutes=minutes), budget))
    given = settings(name, spec, minutes)
    assert (given.pop("batch_size"), given.pop("ema")) == (asked.batch_size, asked.ema)
    # As `pofx.train` puts what is given over the recipe of the budget that ends the training.
    assert cls.Config.from_json(api._override(other.config, given)) == asked.config
    changed = settings(name, spec, minutes, optimizer={"lr": 0.5})
    assert api._override(other.config, {key: value for key, value in changed.items() if key in given})["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize("benchmark", [text, pixels])
def test_rounds_are_those_of_all_seeds_that_an_idle_clock_ended(benchmark):
    rows = [
        {"seed": seed, "rounds": rounds, "by_the_clock": clock, "any_speed": busy}
        for seed, rounds, clock, busy in ((0, 100, True, False), (1, 200, True, False), (2, 900, False, False), (3, 900, True, True))
    ]
    found = {}
    for row in rows:
        found = benchmark.kept(found, row)
    assert found["idle_rounds"] == 150
    assert list(found["seeds"]) == ["0", "1", "2", "3"]
    # What was rehearsed stays where no clock has ended a training.
    assert benchmark.kept({"idle_rounds": 70, "seeds": {}}, rows[2])["idle_rounds"] == 70


def test_a_rehearsal_records_rounds_and_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("to be or not to be " * 400)
    asked = []
    for module in (text, pixels):
        monkeypatch.setattr(module, "RESULTS", tmp_path / f"{module.__name__}.json")
        monkeypatch.setattr(
            module, "rehearsed", lambda model, dataset, minutes, **config: asked.append((model, config)) or round(7 * minutes)
        )
    monkeypatch.setattr(pixels, "images_of", lambda system: type("Images", (), {"spec": IMAGES})())
    (tmp_path / "text.json").write_text(json.dumps({"gpt": {"idle_rounds": 3, "seeds": {"0": {"value": 1.5}}}}))
    for module, flags in ((text, ["--data", str(tmp_path / "t.txt")]), (pixels, ["pixel_cnn binary, an hour"])):
        monkeypatch.setattr("sys.argv", ["x", *flags, "--rehearse"])
        assert module.main() == 0
    found = json.loads((tmp_path / "text.json").read_text())
    assert {name: row["idle_rounds"] for name, row in found.items()} == {"gpt": 70, "rnn": 70, "gpt, an hour": 420}
    assert found["gpt"]["seeds"] == {"0": {"value": 1.5}}
    assert json.loads((tmp_path / "pixels.json").read_text()) == {"pixel_cnn binary, an hour": {"seeds": {}, "idle_rounds": 420}}
    # A minute of the hour's network, not of the minute's.
    assert asked[-1][0] == "pixel_cnn"
    assert asked[-1][1]["width"] == 64
