"""What people are told of their data, their runs and their pictures, so that nothing is learned, drawn or left out in silence."""

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from pofx import data, discovery, examples
from pofx.cli import main
from pofx.core import UsageError
from pofx.figures import interpolation, traversal
from pofx.run import Run

SMALL = ["--steps", "2", "--batch-size", "8"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A conditional game on images of two classes, one of them seen three times as often."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    np.savez(folder / "x.npz", x=random.integers(0, 256, (80, 8, 8), dtype=np.uint8), label=np.array(["up", "up", "up", "down"] * 20))
    flags = ["--model.conditional", "true", "--model.architecture", "dense", "--model.hidden", "16", "--model.latent-dim", "3", "--quiet"]
    assert main(["train", "gan", "--data", str(folder / "x.npz"), "--run", str(folder / "run"), *SMALL, *flags]) == 0
    return folder / "run"


@pytest.fixture
def asked(monkeypatch):
    """The labels that codes are decoded under."""
    seen, decode = [], examples.decode

    def watched(model, z, label=None):
        seen.append(label)
        return decode(model, z, label)

    monkeypatch.setattr(examples, "decode", watched)
    return seen


def test_codes_of_a_conditional_game_are_decoded_under_labels(labelled, asked):
    run = Run.open(labelled)
    model, dataset = run.model(), run.dataset()
    shown = interpolation.draw(model, dataset, run=run)
    (label,) = asked
    each = len(label) // interpolation.WALKS
    assert bool((label.view(-1, each) == label.view(-1, each)[:, :1]).all()), "a walk stays within its class"
    classes = dataset.spec.label.names
    assert texts(shown)[: 2 * interpolation.WALKS] == [
        f"{classes[int(one)]}, {path}" for one in label[::each] for path in interpolation.PATHS
    ]
    asked.clear()
    shown = traversal.draw(model, dataset, run=run)
    *influences, label = asked
    assert all(one is not None for one in influences)
    assert len(label.unique()) == 1
    assert f"({classes[int(label[0])]})" in " ".join(texts(shown))


def texts(figure):
    """All that is written in a figure beside its axes."""
    return [one.get_text() for one in (*figure.axes[0].texts, *figure.texts)]


def test_walks_are_of_the_label_that_is_asked_for(labelled, asked, tmp_path, capsys):
    out = ["--rows", "4", "--steps", "3", "--out", str(tmp_path / "x.npz")]
    assert main(["interpolate", str(labelled), "--label", "down,up", *out]) == 0
    names = Run.open(labelled).dataset().spec.label.names
    wanted = [names.index("down")] * 6 + [names.index("up")] * 6
    assert asked[0].tolist() == wanted
    assert main(["interpolate", str(labelled), *out]) == 0
    assert asked[1].view(4, 3).float().std(1).max() == 0
    assert "'down', 'up'" in refused(capsys, "interpolate", labelled, "--label", "sideways", *out)


def test_pictures_without_labels_are_told(labelled, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", x=np.zeros((2, 8, 8), dtype=np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None])
    fast = ["--starts", "1", "--steps", "2", "--feature-weight", "0", "--quiet", "--out"]
    assert main(["invert", str(labelled), "--data", str(tmp_path / "bare.npz"), *fast, str(tmp_path / "a")]) == 0
    assert "no labels" in capsys.readouterr().err
    assert main(["invert", str(labelled), "--n", "2", *fast, str(tmp_path / "b")]) == 0
    assert "no labels" not in capsys.readouterr().err


def notes(path, text):
    path.write_text(text, encoding="utf-8")
    return " ".join(data.load(path).notes)


def test_a_short_row_of_a_table_is_told(tmp_path):
    whole = "age,smoker\n" + "".join(f"{20 + i},{'yes' if i % 3 else 'no'}\n" for i in range(30))
    assert "smoker (2)" in notes(tmp_path / "whole.csv", whole)
    assert "smoker (2, some empty)" in notes(tmp_path / "short.csv", whole + "33\n")


def test_a_table_whose_names_are_numbers_is_told(tmp_path):
    rows = "".join(f"{i / 7:.3f},{i * i % 11}\n" for i in range(20))
    assert "taken for the names of the columns" in notes(tmp_path / "bare.csv", rows)
    assert "taken for" not in notes(tmp_path / "named.csv", "a,7\n" + rows)


def test_pictures_that_cannot_be_read_are_not_among_the_scaled(tmp_path):
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 9), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    told = " ".join(data.load(tmp_path, data.Options(size="8x8", on_error="skip")).notes)
    assert "(5 of 5, such as 1.png)" in told
    assert "1 of 6 images could not be read" in told


def test_few_examples_are_told_and_nothing_is_promised(tmp_path, capsys):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "one.png")
    assert main(["train", "vae", "--data", str(tmp_path / "one.png"), "--run", str(tmp_path / "run"), "--steps", "2"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "1 training image, 1x8x8" in told
    assert "from 1 training example a model can learn little" in told
    assert "nothing is held out" in told
    assert main(["train", "vae", "--data", "digits", "--run", str(tmp_path / "other"), "--steps", "2"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "learn little" not in told
    assert "data that training never saw" in told


def test_a_run_that_went_wrong_is_marked_in_the_list(labelled, capsys):
    assert main(["list", "runs", str(labelled.parent)]) == 0
    assert "!" not in capsys.readouterr().out
    Run.open(labelled).update(symptoms={"divergence": "the gradients have grown"})
    assert main(["list", "runs", str(labelled.parent)]) == 0
    assert "! divergence" in capsys.readouterr().out


def test_a_run_of_ones_own_model_says_where_models_are_sought(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    source = discovery._files("models")["autoencoder"].read_text(encoding="utf-8")
    (tmp_path / "mine" / "my_own.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("POFX_PATH", str(tmp_path / "mine"))
    assert main(["train", "my_own", "--data", "digits", "--run", str(tmp_path / "run"), *SMALL, "--quiet"]) == 0
    monkeypatch.delenv("POFX_PATH")
    assert "POFX_PATH" in refused(capsys, "reconstruct", tmp_path / "run")


def test_a_mistyped_setting_in_python_gets_the_nearest_one():
    config = discovery.model("gan").Config
    with pytest.raises(UsageError, match=r"unknown field los in GAN\.Config: did you mean loss"):
        config.from_json({"los": "hinge"})
    with pytest.raises(UsageError, match="fields are: "):
        config.from_json({"zzzzz": 1})


def test_a_run_is_shown_in_a_line(labelled):
    assert len(repr(Run.open(labelled))) < 200
    assert torch.is_tensor(examples.prior_codes(Run.open(labelled).model(), 1, 0))
