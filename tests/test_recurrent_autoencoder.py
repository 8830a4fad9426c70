"""Promises of the sequence-to-sequence autoencoder, and of the verbs and numbers that texts get by it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pofx import data
from pofx.cli import main
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.metrics import reconstruction
from pofx.models.autoencoding.recurrent_autoencoder import RecurrentAutoencoder
from pofx.nn.recurrent import Carried
from pofx.subject import Subject

TOKENS = DataSpec("tokens", (), size=2000, vocabulary=5)
SEQUENCES = DataSpec("sequences", (6, 2), size=500)


def build(spec=TOKENS, **fields):
    small = {"window": 6, "latent_dim": 16, "width": 8, "hidden": 32} | fields
    torch.manual_seed(0)
    return RecurrentAutoencoder(spec, dataclasses.replace(RecurrentAutoencoder.recipe(spec, None).config, **small)).eval()


def some(spec=TOKENS, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if spec.kind == "tokens":
        return torch.randint(spec.vocabulary, (n, 6), generator=generator)
    return torch.randn(n, *spec.shape, generator=generator).cumsum(1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("spec", [TOKENS, SEQUENCES], ids=["tokens", "sequences"])
@torch.no_grad()
def test_carried_state_gives_what_a_whole_pass_gives(spec, cell):
    model = build(spec, cell=cell)
    x = some(spec)
    z, previous, carried = model.encode(x), model._shifted(x), Carried()
    whole = model.decoder(previous, z)
    steps = [model.decoder(previous[:, i : i + 1], z, carried) for i in range(6)]
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    # And what is decoded is the likeliest given itself.
    again = model.decode(z)
    output = model.decoder(model._shifted(again), z)
    torch.testing.assert_close(again, output.argmax(-1) if spec is TOKENS else output)


@torch.no_grad()
def test_an_element_depends_on_the_code_and_on_those_before():
    model = build()
    x, z = some(n=1), torch.randn(1, 16)
    changed = x.clone()
    changed[0, 3] = (x[0, 3] + 1) % 5
    first, second = (model.decoder(model._shifted(value), z)[0] for value in (x, changed))
    assert (first != second).any(1).tolist() == [False] * 4 + [True] * 2
    assert (first != model.decoder(model._shifted(x), -z)[0]).any(1).all()


def test_where_every_word_is_dropped_the_decoder_has_the_code_alone():
    for spec in (TOKENS, SEQUENCES):
        model = build(spec, word_dropout=1.0).train()
        x = some(spec)
        z = model.encoder(x).detach()
        outputs = [model.decoder(model._blanked(model._shifted(value)), z) for value in (x, some(spec, seed=1))]
        assert torch.equal(*outputs)
        kept = build(spec, word_dropout=0.0).train()._blanked(x)
        assert torch.equal(kept, x)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_learns_to_copy(cell):
    model = build(cell=cell, hidden=48, latent_dim=24, word_dropout=0.5).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for seed in range(250):
        optimizer.zero_grad()
        model.loss(Batch(some(n=64, seed=seed))).total.backward()
        optimizer.step()
    x = some(n=500, seed=10_000)
    with torch.no_grad():
        wrong = (model.eval().decode(model.encode(x)) != x).double().mean()
    # Guessing is wrong at four of five places.
    assert float(wrong) < 0.3


def test_sequences_refuse_draws_and_labels():
    model = build(SEQUENCES)
    with pytest.raises(UsageError, match="means"):
        model.sample(2, noise=Noise(0, 2), mode="draw")
    with pytest.raises(UsageError, match="label"):
        model.encode(some(SEQUENCES), label=torch.zeros(8, dtype=torch.int64))
    assert build().sample(2, noise=Noise(0, 2), mode="mean").shape == (2, 6)


# -------------------------------------------------------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of a text with every kind of line, trained for a moment."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "x.txt").write_text("the cat sat\non the\tmat. " * 200, encoding="utf-8")
    small = ["--model.window", "12", "--model.hidden", "16", "--model.width", "8", "--model.latent-dim", "4", "--batch-size", "8"]
    arguments = ["train", "recurrent_autoencoder", "--data", str(folder / "x.txt"), "--run", str(folder / "run"), "--steps", "3", "--quiet"]
    assert main([*arguments, *small]) == 0
    return folder / "run"


def said(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_text_and_what_came_back_stand_below_each_other(run, tmp_path, capsys):
    blocks = said(capsys, "reconstruct", run, "--n", 3).rstrip("\n").split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        before, after = block.split("\n")
        assert len(before) == len(after) == 12
    held = data.load(str(run.parent / "x.txt")).test
    text = "".join(block.split("\n")[0] for block in blocks)
    assert text.replace("⏎", "\n").replace("⇥", "\t") == data.load(str(run.parent / "x.txt")).codec.decode(held.x[:36])
    said(capsys, "reconstruct", run, "--out", tmp_path / "x.jsonl")
    rows = [json.loads(line)["text"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [len(row) for row in rows] == [12] * (len(held) // 12)


def test_codes_walks_and_samples_of_texts(run, tmp_path, capsys):
    said(capsys, "encode", run, "--out", tmp_path / "z.npy")
    assert np.load(tmp_path / "z.npy").shape[1] == 4
    walks = said(capsys, "interpolate", run, "--rows", 2, "--steps", 5).rstrip("\n").split("\n\n")
    assert [len(walk.split("\n")) for walk in walks] == [5, 5]
    said(capsys, "interpolate", run, "--rows", 2, "--steps", 5, "--out", tmp_path / "walks.txt")
    assert all(len(text) == 12 for text in said(capsys, "sample", run, "--n", 2).rstrip("\n").split("\n" + "-" * 40 + "\n"))


@pytest.mark.parametrize("figure", ["reconstructions", "latent", "samples", "curves"])
def test_figures_of_texts(run, tmp_path, capsys, figure):
    said(capsys, "plot", run, figure, "--out", tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0


@pytest.mark.parametrize("kept", ["0.02", "0.002"], ids=["validation", "a validation part shorter than a window"])
def test_a_prior_is_fitted_to_codes_of_texts(run, kept, tmp_path, capsys):
    again = shutil.copytree(run, tmp_path / "run")
    info = json.loads((again / "run.json").read_text())
    info["data"]["options"]["validation"] = float(kept)
    (again / "run.json").write_text(json.dumps(info))
    before = said(capsys, "sample", again, "--n", 2)
    out = said(capsys, "fit-prior", again, "--kind", "gmm")
    assert ("validation codes" if kept == "0.02" else "test codes") in out
    assert said(capsys, "sample", again, "--n", 2) != before
    assert said(capsys, "sample", again, "--n", 2, "--prior", "own") == before


def test_wrong_tokens_are_counted_beside_the_commonest(run):
    dataset = data.load(str(run.parent / "x.txt"))
    held = dataset.test

    def rows(model):
        subject = Subject(model, dataset, dataset, held, "test")
        return {row.name: row for row in reconstruction.measure(subject)}

    class Perfect(RecurrentAutoencoder):
        def encode(self, x, *, label=None):
            # A short window at the end gets numbers behind it, which are cut off again.
            return torch.nn.functional.pad(x, (0, self.window - x.shape[1])).float()

        def decode(self, z, *, label=None):
            return z.round().long()

    class Wrong(Perfect):
        def decode(self, z, *, label=None):
            x = z.round().long()
            return torch.cat(((x[:, :3] + 1) % self.spec.vocabulary, x[:, 3:]), 1)

    config = RecurrentAutoencoder.Config(window=12, latent_dim=12, width=4, hidden=8)
    found = rows(Perfect(dataset.spec, config).eval())["wrong tokens of reconstructions"]
    assert found.model == 0
    _, counts = dataset.train.x.unique(return_counts=True)
    x = held.x
    commonest = int(counts.argmax())
    assert found.baselines["commonest token"] == pytest.approx(float((x != commonest).double().mean()))
    windows = -(-len(x) // 12)
    assert found.n == windows
    wrong = rows(Wrong(dataset.spec, config).eval())["wrong tokens of reconstructions"]
    assert wrong.model == pytest.approx(3 * windows / len(x))
