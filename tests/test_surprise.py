"""Scores of texts, streamed samples and the figure of the next token: what they say is what the model says."""

import json
import math
import re

import numpy as np
import pytest
import torch
from refusals import refused

import pofx
from pofx import data, figures, surprise
from pofx.cli import main
from pofx.core import DataSpec, UsageError
from pofx.data.dataset import Split
from pofx.data.text import RULE, Spelling, TokenCodec
from pofx.models.autoregressive.gpt import GPT
from pofx.models.autoregressive.rnn import RNN

TEXT = "größer – als 10 € <b>fett</b> & schön\n" * 60


def build(vocabulary=7, **config):
    """A small model whose weights are all drawn at random."""
    model = GPT(
        DataSpec("tokens", (), size=1000, vocabulary=vocabulary), GPT.Config(**{"window": 9, "width": 16, "depth": 1, "heads": 2} | config)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model.double().eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "x.txt").write_text(TEXT, encoding="utf-8")
    small = ["--model.window", "16", "--model.width", "16", "--model.heads", "2", "--model.depth", "1", "--steps", "3", "--quiet"]
    for tokens in ("chars", "bytes"):
        flags = ["--data", str(folder / "x.txt"), "--data.tokens", tokens, "--run", str(folder / tokens), *small]
        assert main(["train", "gpt", *flags]) == 0
    return folder


def succeeds(capsys, *arguments):
    """What a command prints on standard output."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("length", [1, 8, 9, 10, 13, 14, 100])
def test_every_token_is_scored_once_as_the_model_scores_the_whole_text(length):
    model, text = build(), torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))
    found = surprise.measure(model, Split(text.byte(), tokens=True))
    assert found.tokens.tolist() == text.tolist()
    assert float(found.nats.sum()) == pytest.approx(-float(model.log_prob(text[None]).nats), rel=1e-12)
    log_p = model.logits(text[None])[0].detach().log_softmax(-1)
    np.testing.assert_allclose(found.chance, log_p.exp().max(-1).values.numpy(), rtol=1e-10)
    assert found.expected.tolist() == log_p.argmax(-1).tolist()
    assert len(surprise.measure(model, Split(text.byte(), tokens=True), limit=5).nats) == min(5, length)


@pytest.mark.parametrize("cell", ["lstm", "gru", "plain"])
@pytest.mark.parametrize("length", [1, 4, 9, 30])
def test_a_model_that_carries_a_state_reads_a_text_in_one_pass(cell, length):
    spec = DataSpec("tokens", (), size=1000, vocabulary=7)
    torch.manual_seed(0)
    model = RNN(spec, RNN.Config(cell=cell, window=4, width=12, runs=3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    text = torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))
    found = surprise.measure(model, Split(text.byte(), tokens=True))
    assert found.tokens.tolist() == text.tolist()
    assert float(found.nats.sum()) == pytest.approx(-float(model.log_prob(text[None]).nats), rel=1e-12)
    begun = surprise.measure(model, Split(text.byte(), tokens=True), limit=3)
    np.testing.assert_allclose(begun.nats, found.nats[:3], rtol=1e-12)
    assert surprise.context(model) == ""


def test_what_is_surprising_stands_out_and_text_stays_text():
    codec = TokenCodec("bytes")
    tokens = np.frombuffer("a<€b".encode(), dtype=np.uint8).astype(np.int64)
    nats = np.array([0.1, 9.0, 0.2, 0.2, 3.0, 0.1]) * math.log(2)
    found = surprise.Surprise(tokens, nats, np.full(6, ord(">")), np.full(6, 0.5))
    page = surprise.document(found, codec, "<title>", "of a test")
    text = page[page.index('<pre class="prose">') :]
    assert re.findall(r'class="s(\d)" title="([\d.]+) bits; likeliest was &gt; 50%">(.+?)</span>', text) == [
        ("4", "9.0", "&lt;"),
        ("1", "3.4", "€"),
    ]
    assert re.sub(r"<[^>]+>", "", text).startswith("a&lt;€b")
    assert "<title><title>" not in page
    assert dict(surprise.summary(found, codec)) == {
        "characters": "4",
        "tokens": "6",
        "nats per token": f"{12.6 * math.log(2) / 6:.4f}",
        "nats per character": f"{12.6 * math.log(2) / 4:.4f}",
        "bits per character": "3.1500",
        "perplexity per token": f"{2 ** (12.6 / 6):.3f}",
    }


def test_score_prints_what_the_model_says_of_the_held_out_part_and_of_other_texts(capsys, run, tmp_path):
    model = pofx.load(run / "chars")
    test = data.load(run / "x.txt").test.x.long()
    numbers = dict(line.rsplit(None, 1) for line in succeeds(capsys, "score", run / "chars").splitlines()[1:-1])
    nats = -float(model.log_prob(test[None]).nats)
    assert float(numbers["nats per character"]) == pytest.approx(nats / len(test), abs=1e-4)
    assert float(numbers["bits per character"]) == pytest.approx(nats / len(test) / math.log(2), abs=1e-4)
    assert float(numbers["perplexity per token"]) == pytest.approx(math.exp(nats / len(test)), rel=1e-3)
    page = tmp_path / "page.html"
    assert succeeds(capsys, "score", run / "chars", "--text", "größer\n", "--out", page).endswith(f"{page}\n")
    given = model.log_prob(data.load(run / "x.txt").codec.encode("größer\n")[None].long()).nats
    (tmp_path / "y.txt").write_text("größer\n", encoding="utf-8")
    said = succeeds(capsys, "score", run / "chars", "--data", tmp_path / "y.txt")
    assert f"{-float(given) / 7:.4f}" in said
    assert f"{-float(given) / 7:.4f}" in page.read_text(encoding="utf-8")


def test_images_and_vectors_are_scored_example_by_example(capsys, tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.normal(size=(60, 3)) * 5 + 2)
    assert main(["train", "vae", "--data", str(tmp_path / "x.npy"), "--run", str(tmp_path / "run"), "--steps", "3", "--quiet"]) == 0
    out = tmp_path / "nats.csv"
    said = succeeds(capsys, "score", tmp_path / "run", "--data", tmp_path / "x.npy", "--out", out)
    values = np.loadtxt(out, skiprows=1)
    assert len(values) == 60
    assert float(re.search(r"nats per example +(\S+)", said)[1]) == pytest.approx(-values.mean(), abs=1e-3)


def test_scores_are_refused_in_a_sentence(capsys, run):
    assert "--text is empty" in refused(capsys, "score", str(run / "chars"), "--text", "")
    assert "leave --data out" in refused(capsys, "score", str(run / "chars"), "--text", "a", "--data", "digits")
    assert ".html" in refused(capsys, "score", str(run / "chars"), "--out", "page.png")
    assert "--n must be" in refused(capsys, "score", str(run / "chars"), "--n", "0")


@pytest.mark.parametrize("ids", [TEXT.encode()[:70], b"\xff\xff\xffa\xe2\x82\xac\xff", b"\xe2\x82", b"\xf0\x9f\x98\x80\xf0\x9f", b""])
def test_a_text_that_comes_in_pieces_is_the_text(ids):
    codec, numbers = TokenCodec("bytes"), torch.tensor(list(ids), dtype=torch.int64)
    for size in (1, 2, 3):
        spelling = Spelling(codec)
        said = [spelling.add(part) for part in numbers.split(size)]
        # Only what may be the beginning of a character waits.
        assert len(codec.decode(numbers)) - len("".join(said)) <= 1
        assert "".join(said) + spelling.rest() == codec.decode(numbers)


@pytest.mark.parametrize("tokens", ["chars", "bytes"])
def test_a_streamed_sample_is_the_sample(capsys, run, tokens, tmp_path):
    asked = ["sample", run / tokens, "--n", "3", "--prompt", "größ", "--length", "40", "--temperature", "0.8"]
    for more in ([], ["--stop", "e", r"\n", "\N{REPLACEMENT CHARACTER}"]):
        succeeds(capsys, *asked, *more, "--out", tmp_path / "x.jsonl")
        written = [json.loads(line)["text"] for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
        said = succeeds(capsys, *asked, *more)
        assert said == RULE.join(written) + "\n"
        assert all(text.startswith("größ") for text in written)
        if more:
            for text in written:
                assert not re.search("[e\n\ufffd]", text[4:-1])
    assert "empty string" in refused(capsys, *map(str, asked), "--stop", "")


def test_the_figure_of_the_next_token_shows_the_models_probabilities(run):
    model, dataset = pofx.load(run / "chars"), data.load(run / "x.txt")
    figure = figures.draw("next-token", model, dataset, prompt="größer")
    above, below = figure.axes
    x = dataset.codec.encode("größer").long()[None]
    chances = model.logits(torch.cat((x, x[:, :1]), 1))[0, -1].softmax(-1).sort(descending=True).values
    np.testing.assert_allclose([bar.get_height() for bar in above.patches], chances[: len(above.patches)], rtol=1e-4)
    bits = [bar.get_height() for bar in below.patches]
    assert sum(bits) * math.log(2) == pytest.approx(-float(model.log_prob(x).nats), rel=1e-4)
    with pytest.raises(UsageError, match="empty"):
        figures.draw("next-token", model, dataset, prompt="")
