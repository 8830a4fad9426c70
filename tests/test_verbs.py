"""Each verb on a small trained run: what it writes, in which units, and what it says where it cannot."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from refusals import refused

import pofx
from pofx import checkpoint, discovery
from pofx.cli import main
from pofx.evaluate import evaluate, keep
from pofx.run import Run

SMALL = ["--steps", "3", "--batch-size", "16", "--quiet"]


def succeeds(capsys, *arguments):
    """What a command prints on standard output."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def picture_size(path):
    """(width, height) of a picture."""
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A conditional model of labelled images."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    np.savez(folder / "x.npz", x=random.integers(0, 256, (80, 9, 7), dtype=np.uint8), label=np.array(["up", "down"] * 40))
    flags = ["--model.latent-dim", "2", "--model.hidden", "16", "--model.conditional", "true"]
    assert main(["train", "vae", "--data", str(folder / "x.npz"), "--run", str(folder / "run"), *flags, *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def rows():
    """Numbers, whole numbers, categories, empty cells."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"height": random.normal(170, 10, 90).round(1), "children": random.integers(0, 5, 90), "town": random.choice(["Bern", "Graz"], 90)}
    )
    table.loc[::7, "height"] = None
    return table


@pytest.fixture(scope="module", params=["vae", "gan"])
def table(request, rows, tmp_path_factory):
    """A model of the table."""
    folder = tmp_path_factory.mktemp("table")
    rows.to_csv(folder / "x.csv", index=False)
    assert main(["train", request.param, "--data", str(folder / "x.csv"), "--run", str(folder / "run"), *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model of characters."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "x.txt").write_text("the cat sat on the mat. " * 200, encoding="utf-8")
    flags = ["--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.window", "16"]
    assert main(["train", "gpt", "--data", str(folder / "x.txt"), "--run", str(folder / "run"), *flags, *SMALL]) == 0
    return folder


def test_a_training_that_has_not_ended_is_told(images, tmp_path, capsys):
    assert "has not ended" not in asked_of(images / "run", tmp_path, capsys)
    shutil.copytree(images / "run", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.update(status="interrupted")
    assert "has not ended (interrupted); this is its move 3" in asked_of(run.path, tmp_path, capsys)
    assert "has not ended" not in asked_of(f"{run.path}@3", tmp_path, capsys), "a checkpoint of one's choice"


def asked_of(run, folder, capsys):
    """What sampling from a run says on standard error."""
    capsys.readouterr()
    assert main(["sample", str(run), "--n", "2", "--out", str(folder / "x.npz")]) == 0
    return capsys.readouterr().err


def test_samples_of_images_in_every_form(images, tmp_path, capsys):
    run = images / "run"
    assert picture_size(succeeds(capsys, "sample", run, "--n", 6).strip())[0] > 7
    succeeds(capsys, "sample", run, "--n", 6, "--label", "up", "--out", tmp_path / "x.npz")
    drawn = np.load(tmp_path / "x.npz")
    assert (drawn["x"].shape, drawn["x"].dtype) == ((6, 9, 7), np.uint8)
    assert list(drawn["label"]) == ["up"] * 6
    succeeds(capsys, "sample", run, "--n", 6, "--out", f"{tmp_path / 'folder'}/")
    files = sorted((tmp_path / "folder").rglob("*.png"))
    assert len(files) == 6
    assert picture_size(files[0]) == (7, 9)


def test_drawn_labels_are_written_beside_the_samples(images, tmp_path, capsys):
    succeeds(capsys, "sample", images / "run", "--n", 40, "--out", tmp_path / "x.npz")
    drawn = np.load(tmp_path / "x.npz")
    assert set(drawn["label"]) == {"up", "down"}
    succeeds(capsys, "sample", images / "run", "--n", 40, "--out", f"{tmp_path / 'folder'}/")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["down", "up"]


@pytest.mark.parametrize("n", [1, 5, 10, 64])
def test_a_picture_of_reconstructions_has_each_result_below_its_input(images, tmp_path, capsys, n):
    run, source, path = images / "run", images / "x.npz", tmp_path / "pairs.png"
    succeeds(capsys, "reconstruct", run, "--data", source, "--n", n, "--out", path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    factor = -(-64 // 9)
    height, width = 9 * factor + 1, 7 * factor + 1
    columns = (pixels.shape[1] + 1) // width
    inputs = np.load(source)["x"]
    succeeds(capsys, "reconstruct", run, "--data", source, "--n", n, "--out", tmp_path / "again.npz")
    results = np.load(tmp_path / "again.npz")["x"]
    for i in range(n):
        top, left = 2 * (i // columns) * height, i % columns * width
        for below, image in ((0, inputs[i]), (height, results[i])):
            tile = pixels[top + below : top + below + 9 * factor : factor, left : left + 7 * factor : factor]
            np.testing.assert_allclose(tile.astype(int), image.astype(int), atol=1)


def test_equal_seeds_give_equal_samples(images, tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        succeeds(capsys, "sample", images / "run", "--n", 5, "--seed", seed, "--out", tmp_path / f"{name}.npz")
    a, b, c = (np.load(tmp_path / f"{name}.npz")["x"] for name in "abc")
    assert (a == b).all()
    assert (a != c).any()


def test_reconstructions_codes_and_walks(images, tmp_path, capsys):
    run, source = images / "run", images / "x.npz"
    assert picture_size(succeeds(capsys, "reconstruct", run).strip())[0] > 7
    succeeds(capsys, "reconstruct", run, "--data", source, "--out", tmp_path / "again.npz")
    assert np.load(tmp_path / "again.npz")["x"].shape[1:] == (9, 7)
    succeeds(capsys, "encode", run, "--data", source, "--out", tmp_path / "z.npz")
    codes = np.load(tmp_path / "z.npz")
    assert codes["z"].shape == (80, 2)
    assert list(codes["label"]) == ["up", "down"] * 40
    succeeds(capsys, "encode", run, "--data", source, "--out", tmp_path / "z.csv")
    written = pd.read_csv(tmp_path / "z.csv")
    np.testing.assert_allclose(written[["z0", "z1"]].to_numpy(), codes["z"], atol=1e-6)
    assert list(written["label"]) == list(codes["label"])
    succeeds(capsys, "interpolate", run, "--rows", 2, "--steps", 5, "--out", tmp_path / "walks.npz")
    assert np.load(tmp_path / "walks.npz")["x"].shape == (10, 9, 7)


def test_a_walk_begins_and_ends_at_reconstructions(images, tmp_path, capsys):
    run, source = images / "run", images / "x.npz"
    succeeds(capsys, "interpolate", run, "--data", source, "--rows", 1, "--steps", 3, "--out", tmp_path / "walk.npz")
    walk = np.load(tmp_path / "walk.npz")["x"].astype(int)
    succeeds(capsys, "encode", run, "--data", source, "--out", tmp_path / "z.npy")
    model = pofx.load(run)
    z = torch.from_numpy(np.load(tmp_path / "z.npy"))[:2]
    # The model is conditional: the walk stays in the class of its first example.
    first = torch.zeros(3, dtype=torch.int64)
    assert list(np.load(source)["label"][:2]) == ["up", "down"]
    first += model.spec.label.names.index("up")
    wanted = model.decode(torch.stack((z[0], z.mean(0), z[1])), label=first).numpy()[:, 0] * 255
    np.testing.assert_allclose(walk, wanted, atol=1)


def test_every_figure_that_a_model_has(images, tmp_path, capsys):
    capabilities = pofx.load(images / "run").capabilities
    for figure in discovery.names("figures"):
        if not set(discovery.load("figures", figure).needs) <= capabilities:
            continue
        path = tmp_path / f"{figure}.png"
        if figure in ("codes", "mixing", "truncation", "growth"):  # no settings of a vae have these
            assert "needs a model" in refused(capsys, "plot", images / "run", figure, "--out", path)
            continue
        assert succeeds(capsys, "plot", images / "run", figure, "--out", path).strip() == str(path)
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 0, f"{figure} is empty"


def test_evaluation_is_printed_kept_and_shown(images, tmp_path, capsys):
    printed = succeeds(capsys, "evaluate", images / "run", "--json", tmp_path / "numbers.json")
    kept = json.loads((tmp_path / "numbers.json").read_text())
    in_run = json.loads((images / "run" / "evaluation.json").read_text())
    assert kept == {name: value for name, value in in_run.items() if name != "draws"}
    assert kept["rows"]
    for row in kept["rows"]:
        assert row["name"].split()[0] in printed
    assert kept["rows"][0]["name"] in (images / "run" / "report.html").read_text()
    again = json.loads(succeeds(capsys, "evaluate", images / "run", "--json", "-"))
    assert again["looks"] == kept["looks"] + 1

    def without_time(report):
        return [row for row in report["rows"] if row["about"] != "cost"]

    assert without_time(again) == without_time(kept)


def test_a_table_is_drawn_with_its_names_types_and_gaps(table, rows, tmp_path, capsys):
    succeeds(capsys, "sample", table / "run", "--n", 200, "--out", tmp_path / "x.csv")
    drawn = pd.read_csv(tmp_path / "x.csv")
    assert list(drawn.columns) == list(rows.columns)
    assert set(drawn["town"]) <= {"Bern", "Graz"}
    assert (drawn["children"] == drawn["children"].round()).all()
    assert drawn["children"].between(0, 4).all()
    assert 0 < drawn["height"].isna().sum() < 200
    again = pd.read_csv(succeeds(capsys, "sample", table / "run", "--n", 3).strip())
    assert list(again.columns) == list(rows.columns)


def test_texts_go_to_standard_output_and_continue_a_prompt(text, tmp_path, capsys):
    printed = succeeds(capsys, "sample", text / "run", "--n", 2, "--prompt", "the cat", "--length", 5, "--temperature", 0.5)
    first, second = printed.rstrip("\n").split("\n" + "-" * 40 + "\n")
    assert all(len(sample) == len("the cat") + 5 and sample.startswith("the cat") for sample in (first, second))
    # Nothing is printed where something else is wrong.
    assert "temperature" in refused(capsys, "sample", text / "run", "--n", 1, "--prompt", "the cat", "--temperature", -1)
    assert succeeds(capsys, "sample", text / "run", "--n", 1, "--prompt", "the cat", "--length", 0) == "the cat\n"
    succeeds(capsys, "sample", text / "run", "--n", 3, "--out", tmp_path / "x.jsonl")
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 3
    rows = json.loads(succeeds(capsys, "evaluate", text / "run", "--json", "-"))["rows"]
    assert set(rows[0]["baselines"]) == {"unigram", "bigram", "n-gram"}


def test_what_a_model_cannot_do_names_the_capability_and_who_can(text, images, capsys):
    sentence = refused(capsys, "reconstruct", text / "run")
    assert "maps data to codes" in sentence
    assert "vae" in sentence
    assert "--prompt" in refused(capsys, "sample", images / "run", "--prompt", "x")
    assert "did you mean up" in refused(capsys, "sample", images / "run", "--label", "upp")
    for verb in ("sample", "reconstruct"):
        assert "--n" in refused(capsys, verb, images / "run", "--n", 0)


def test_lists(capsys, images):
    everything = succeeds(capsys, "list")
    for what in ("models", "data", "figures", "metrics"):
        lines = succeeds(capsys, "list", what).splitlines()
        assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
        assert all(line in everything for line in lines)
    assert "vae" in succeeds(capsys, "list", "runs", images)


def test_a_run_finds_its_data_from_another_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32))
    succeeds(capsys, "train", "vae", "--data", "x.npy", "--run", "run", "--steps", 3, "--model.hidden", 8, "--quiet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "real" in succeeds(capsys, "evaluate", tmp_path / "run", "--quiet")
    succeeds(capsys, "train", "--run", tmp_path / "run", "--resume", "--steps", 4, "--quiet")
    (tmp_path / "x.npy").rename(tmp_path / "elsewhere" / "gone.npy")
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "x.npy" in capsys.readouterr().err


def test_a_run_of_a_model_that_has_changed_is_one_sentence(tmp_path, capsys, monkeypatch):
    succeeds(capsys, "train", "autoencoder", "--data", "digits", "--steps", 2, "--quiet", "true", "--run", tmp_path / "run")
    from pofx import discovery

    changed = discovery.model("autoencoder")
    build = changed.__init__

    def grown(self, *arguments, **networks):
        build(self, *arguments, **networks)
        self.register_buffer("new", torch.zeros(1))

    monkeypatch.setattr(changed, "__init__", grown)
    assert "another version of the model" in refused(capsys, "sample", tmp_path / "run")


def test_named_pictures_that_do_not_fit_are_told(images, tmp_path, capsys):
    random = np.random.default_rng(1)
    for name, size in (("same", (9, 7)), ("other", (18, 20))):
        np.savez(tmp_path / f"{name}.npz", x=random.integers(0, 256, (4, *size), dtype=np.uint8))
        assert main(["reconstruct", str(images / "run"), "--data", str(tmp_path / f"{name}.npz")]) == 0
        told = capsys.readouterr().err
        assert ("scaled to 9x7" in told) == (name == "other")


def test_characters_that_the_training_never_saw_are_told(text, capsys):
    for prompt, strange in (("the cat", False), ("the ñ cat", True)):
        assert main(["sample", str(text / "run"), "--n", "1", "--length", "4", "--prompt", prompt]) == 0
        told = capsys.readouterr().err
        assert ("'ñ'" in told) == strange
    assert main(["score", str(text / "run"), "--text", "the ñ cat"]) == 0
    assert "'ñ'" in capsys.readouterr().err


def test_numbers_of_a_checkpoint_of_ones_choice_are_not_taken_for_the_runs(tmp_path, capsys):
    run = pofx.train(
        "autoencoder",
        "digits",
        run=tmp_path / "runs" / "run",
        steps=6,
        hidden=(8,),
        checkpoint_every=2,
        patience=None,
        report=False,
        quiet=True,
    )
    first = next(step for step in checkpoint.steps(run.checkpoints) if step != Run.open(run.path).step)
    assert main(["evaluate", str(run.path), "--quiet"]) == 0
    before = (run.path / "evaluation.json").read_bytes()
    page = (run.path / "report.html").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", f"{run.path}@{first}", "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"autoencoder at move {first} on digits" in shown
    assert "are not kept" in shown
    assert (run.path / "evaluation.json").read_bytes() == before
    assert (run.path / "report.html").read_bytes() == page
    # After more training the list says of which move the number is.
    keep(Run.open(run.path), evaluate(f"{run.path}@{first}"))
    assert main(["list", "runs", str(tmp_path / "runs")]) == 0
    assert f", at move {first})" in capsys.readouterr().out
