"""Benchmarks of text and of pixels keep rows seed by seed, and record what a minute of an idle machine is."""

import json

import idle
import pixels
import text

from pofx.core import DataSpec

IMAGES = DataSpec("images", (1, 28, 28), size=57_000, bits=1)


def test_rounds_are_those_of_all_seeds_that_an_idle_clock_ended():
    rows = [
        {"seed": seed, "rounds": rounds, "by_the_clock": clock, "any_speed": busy}
        for seed, rounds, clock, busy in ((0, 100, True, False), (1, 200, True, False), (2, 900, False, False), (3, 900, True, True))
    ]
    found = {}
    for row in rows:
        found = idle.kept(found, row)
    assert found["idle_rounds"] == 150
    assert list(found["seeds"]) == ["0", "1", "2", "3"]
    # What was rehearsed stays where no clock has ended a training.
    assert idle.kept({"idle_rounds": 70, "seeds": {}}, rows[2])["idle_rounds"] == 70


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
    minutes = {name: system.minutes for name, system in text.SYSTEMS.items() if system.minutes is not None and not system.hybrid}
    assert {name: row["idle_rounds"] for name, row in found.items()} == {name: 7 * length for name, length in minutes.items()}
    assert found["gpt"]["seeds"] == {"0": {"value": 1.5}}
    assert json.loads((tmp_path / "pixels.json").read_text()) == {"pixel_cnn binary, an hour": {"seeds": {}, "idle_rounds": 420}}
    assert [model for model, _ in asked] == ["gpt", "rnn", "gpt", "gpt", "gpt", "pixel_cnn"]
