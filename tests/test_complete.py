"""Masks, `pofx complete` and the figure of completions: what is given stays, the rest is filled in, and errors are sentences."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from refusals import refused

import pofx
from pofx import examples, figures, masks
from pofx.cli import main
from pofx.core import Column, DataSpec, UsageError

IMAGES = DataSpec("images", (1, 5, 4), size=10, bits=8)
TABLE = DataSpec("vectors", (3,), size=10, columns=(Column("a", "number", 0, 1), Column("b", "category", 1, 3)))
SMALL = ["--steps", "3", "--batch-size", "16", "--quiet"]


@pytest.mark.parametrize(("text", "rows", "columns"), [("top", [0, 1], range(4)), ("bottom", [3, 4], range(4))])
def test_halves_of_an_image(text, rows, columns):
    keep = masks.mask(IMAGES, text)
    assert keep.nonzero()[:, 1].unique().tolist() == rows
    assert keep.nonzero()[:, 2].unique().tolist() == list(columns)


def test_left_and_right_halves():
    assert torch.equal(masks.mask(IMAGES, "left"), ~masks.mask(IMAGES, "right"))
    assert masks.mask(DataSpec("tokens", (), vocabulary=3), None, 6).tolist() == [True] * 3 + [False] * 3
    assert masks.mask(DataSpec("sequences", (4, 2)), "right").tolist() == [[False, False]] * 2 + [[True, True]] * 2


def test_columns_of_a_table():
    assert masks.mask(TABLE, "b").tolist() == [False, True, True]


def test_bright_pixels_of_a_picture(tmp_path):
    picture = np.zeros((10, 8), dtype=np.uint8)
    picture[:4, 2:] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    keep = masks.mask(IMAGES, str(tmp_path / "mask.png"))
    assert keep.shape == (1, 5, 4)
    wanted = torch.zeros(5, 4, dtype=torch.bool)
    wanted[:2, 1:] = True
    assert torch.equal(keep[0], wanted)


def test_masks_that_make_no_sense(tmp_path):
    Image.new("L", (3, 3), 255).save(tmp_path / "white.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for spec, text, says in (
        (IMAGES, "nowhere.png", "nowhere.png"),
        (IMAGES, str(tmp_path / "white.png"), "everything"),
        (IMAGES, str(tmp_path / "broken.png"), "picture"),
        (TABLE, "top", "left"),
        (TABLE, "c", "a, b"),
        (TABLE, "a,b", "everything"),
        (DataSpec("vectors", (1,)), "left", "nothing"),
    ):
        with pytest.raises(UsageError, match=says):
            masks.mask(spec, text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional model of labelled images."""
    folder = tmp_path_factory.mktemp("pixels")
    random = np.random.default_rng(0)
    np.savez(folder / "x.npz", x=random.integers(0, 256, (80, 6, 5), dtype=np.uint8), label=np.array(["up", "down"] * 40))
    flags = ["--model.width", "8", "--model.depth", "1", "--model.conditional", "true"]
    assert main(["train", "pixel_cnn", "--data", str(folder / "x.npz"), "--run", str(folder / "run"), *flags, *SMALL]) == 0
    return folder


def succeeds(capsys, *arguments):
    """What a command prints on standard output."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_what_is_given_stays_in_every_completion(run, tmp_path, capsys):
    flags = ["--data", run / "x.npz", "--mask", "top", "--n", 5, "--each", 3, "--out"]
    succeeds(capsys, "complete", run / "run", *flags, tmp_path / "a.npz")
    x, filled = np.load(run / "x.npz")["x"][:5], np.load(tmp_path / "a.npz")["x"]
    assert filled.shape == (15, 6, 5)
    filled = filled.reshape(5, 3, 6, 5)
    assert (filled[:, :, :3] == x[:, None, :3]).all()
    assert (filled[:, 0, 3:] != filled[:, 1, 3:]).any()
    succeeds(capsys, "complete", run / "run", *flags, tmp_path / "b.npz")
    assert (np.load(tmp_path / "b.npz")["x"].reshape(5, 3, 6, 5) == filled).all()
    succeeds(capsys, "complete", run / "run", *flags, tmp_path / "c.npz", "--label", "up", "--temperature", "0.5")
    named = np.load(tmp_path / "c.npz")
    assert list(named["label"]) == ["up"] * 15


def test_the_picture_has_a_row_for_each_example(run, capsys):
    path = succeeds(capsys, "complete", run / "run", "--n", 2, "--each", 4).strip()
    with Image.open(path) as picture:
        width, height = picture.size
    factor = -(-64 // 6)
    assert (width, height) == (6 * (5 * factor + 1) - 1, 2 * (6 * factor + 1) - 1)


def test_the_film_fills_row_after_row(run, tmp_path, capsys):
    path = tmp_path / "film.gif"
    succeeds(capsys, "plot", run / "run", "completion", "--mask", "top", "--out", path)
    with Image.open(path) as film:
        # Nothing, then each of the three missing rows, with which it ends.
        assert film.n_frames == 4
    succeeds(capsys, "plot", run / "run", "completion", "--out", tmp_path / "still.png")


def test_frames_show_only_rows_that_are_done(run):
    model = pofx.load(run / "run")
    shown = list(figures.film("completion", model, pofx.data.load(run / "x.npz"), mask="top"))
    assert len(shown) == 4
    first, last = (np.asarray(frame.axes[0].images[0].get_array()) for frame in (shown[0], shown[-1]))
    assert (first != last).any()


def test_parts_equal_the_whole(run, monkeypatch):
    model = pofx.load(run / "run")
    x = torch.rand(5, 1, 6, 5).mul(255).round() / 255
    keep = masks.mask(model.spec, "left")
    whole = examples.complete(model, x, keep, each=2)
    monkeypatch.setattr(examples, "PART", 3)
    torch.testing.assert_close(examples.complete(model, x, keep, each=2), whole)


def test_rows_of_a_table_are_completed_by_column(tmp_path, capsys):
    random = np.random.default_rng(0)
    table = pd.DataFrame({"height": random.normal(170, 10, 90).round(1), "town": random.choice(["Bern", "Graz"], 90)})
    table.to_csv(tmp_path / "x.csv", index=False)
    assert main(["train", "made", "--data", str(tmp_path / "x.csv"), "--run", str(tmp_path / "run"), *SMALL]) == 0
    flags = ["--data", tmp_path / "x.csv", "--mask", "height", "--each", 1, "--out", tmp_path / "filled.csv"]
    succeeds(capsys, "complete", tmp_path / "run", *flags)
    filled = pd.read_csv(tmp_path / "filled.csv")
    np.testing.assert_allclose(filled["height"], table["height"], atol=0.06)
    assert set(filled["town"]) <= {"Bern", "Graz"}
    assert "height, town" in refused(capsys, "complete", tmp_path / "run", "--mask", "weight")


def test_what_cannot_be_done_is_said(run, capsys):
    assert "--each" in refused(capsys, "complete", run / "run", "--each", "0")
    assert "bright" in refused(capsys, "complete", run / "run", "--mask", "middle")
    assert "--mask" in refused(capsys, "plot", run / "run", "curves", "--mask", "top")
