"""Promises of `mixture` and `pofx mix`: normalised in every context, never worse than its parts where it was chosen, and a hybrid by name."""

import itertools
import json

import pytest
import torch

from pofx import api, checkpoint, mixing
from pofx.cli import main
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.data import Options
from pofx.evaluate import kept
from pofx.models.hybrid.mixture import Mixture
from pofx.run import Run, load


def part(name, **config):
    return json.dumps({"model": name, "config": config})


def build(vocabulary=3, seed=0, window=4):
    """A random network beside two n-grams, with exponents of no particular choice."""
    parts = (
        part("gpt", window=window, width=16, depth=1, heads=2),
        part("ngram", order=1, window=window),
        part("ngram", order=3, window=window),
    )
    torch.manual_seed(seed)
    model = Mixture(DataSpec("tokens", (), size=500, vocabulary=vocabulary), Mixture.Config(parts=parts)).eval()
    text = (torch.randint(2, (500,)) + 1).cumsum(0) % vocabulary
    for ngram in model.parts[1:]:
        ngram.fit(iter([Batch(text[None])]))
    with torch.no_grad():
        for parameter in model.parts[0].parameters():
            parameter.normal_(0, 0.4)
        model.slopes.normal_()
        model.exponents.normal_()
    return model.double(), text


def test_probabilities_of_all_short_texts_sum_to_one():
    model, _ = build()
    every = torch.tensor(list(itertools.product(range(3), repeat=6)))  # longer than a window, too
    assert model.log_prob(every).nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_distribution_never_looks_ahead():
    model, text = build()
    x = text[None, :12]
    plain = model.logits(x)[0]
    for changed in range(12):
        y = x.clone()
        y[0, changed] = (y[0, changed] + 1) % 3
        assert torch.equal(model.logits(y)[0, : changed + 1], plain[: changed + 1])


def test_what_is_written_token_by_token_is_what_is_read_at_once():
    model, text = build()
    x = text[:40].view(4, 10)
    read = model.reader(x)
    for place in range(10):
        torch.testing.assert_close(read(place), model.logits(x)[:, place], rtol=0, atol=1e-9)
    drawn = model.sample(3, noise=Noise(0, 3), prompt=text[:5], mode="mean", length=8)
    assert torch.equal(model.logits(drawn).argmax(-1)[:, 5:], drawn[:, 5:])


def test_exponents_say_who_is_trusted_where():
    # One part knows every other token, the other part the rest, and each is sure only where it knows.
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, (4000,), generator=generator)
    knows = torch.nn.functional.one_hot(x, 5) * 0.9 + 0.02
    unknowing = torch.full((4000, 5), 0.2) + 0.01 * torch.rand(4000, 5, generator=generator)
    even = (torch.arange(4000) % 2 == 0)[:, None]
    log_p = torch.stack([torch.where(even, knows, unknowing), torch.where(even, unknowing, knows)], -1).log().log_softmax(1)
    model = Mixture(DataSpec("tokens", (), vocabulary=5), Mixture.Config(parts=(part("ngram"), part("ngram"))))
    reached = model.choose(log_p, x)
    alone = -log_p.gather(1, x[:, None, None].expand(-1, 1, 2))[:, 0].mean(0)
    assert reached < 0.2 * float(alone.min())
    logits = model._multiply(log_p)
    assert float(torch.nn.functional.cross_entropy(logits, x)) == pytest.approx(reached, rel=1e-4)


def test_a_useless_part_is_not_listened_to():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (3000,), generator=generator)
    good = torch.nn.functional.one_hot(x, 4) + 0.5 + torch.rand(3000, 4, generator=generator)
    noise = torch.rand(3000, 4, generator=generator) + 0.1
    log_p = torch.stack([good, noise], -1).log().log_softmax(1)
    model = Mixture(DataSpec("tokens", (), vocabulary=4), Mixture.Config(parts=(part("ngram"), part("ngram"))))
    model.choose(log_p, x)
    heard = model.exponents + torch.cat((-(log_p.exp() * log_p).sum(1), log_p.amax(1)), 1) @ model.slopes.T
    assert float(heard[:, 1].abs().mean()) < 0.1 * float(heard[:, 0].abs().mean())


TEXT = "the cat sat on the mat, and the rat sat on the hat of the cat. a dog ran up to the mat and sat. "


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A text of many repetitions with slips, a trained network and an n-gram."""
    folder = tmp_path_factory.mktemp("mix")
    generator = torch.Generator().manual_seed(0)
    slips = torch.rand(len(TEXT) * 400, generator=generator) < 0.05
    path = folder / "cats.txt"
    path.write_text("".join("x" if slip else c for c, slip in zip(TEXT * 400, slips, strict=True)))
    short = {"quiet": True, "report": False}
    gpt = api.train("gpt", path, run=folder / "gpt", steps=12, window=32, width=32, depth=1, heads=2, batch_size=8, **short)
    ngram = api.train("ngram", path, run=folder / "ngram", order=2, window=32, **short)
    return folder, path, gpt, ngram


def test_a_hybrid_beats_its_parts_on_text_that_nobody_saw(runs):
    folder, _, gpt, ngram = runs
    mixed = mixing.mix([gpt, ngram], orders=[5], out=folder / "hybrid")
    assert mixed.together < min(mixed.alone.values())
    test = gpt.dataset().test
    x = test.x[: len(test) // 32 * 32].long().view(-1, 32)
    nats = {run.path.name: -float(load(run.path).log_prob(x).nats.mean()) / 32 for run in (mixed.run, gpt, ngram)}
    assert nats["hybrid"] < min(nats["gpt"], nats["ngram"])
    assert str(mixed).startswith("hybrid: ")
    assert mixed.run.info["parts"] == [f"gpt ({gpt.path})", f"ngram ({ngram.path})", "n-gram of order 5"]
    assert mixed.run.info["status"] == "finished"
    # The n-gram that was counted for it has learned the validation part as well, the run that was given has not.
    counted = [int(part.chain.counts.levels()[0].counts.sum()) for part in load(mixed.run.path).parts[1:]]
    data = gpt.dataset()
    assert counted == [len(data.train), len(data.train) + len(data.validation)]


def test_a_hybrid_is_a_run_like_any_other(runs, capsys):
    folder, path, gpt, _ = runs
    out = folder / "by-hand"
    assert main(["mix", str(gpt.path), "--orders", "2", "4", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out)
    assert "hybrid: " in printed.err
    assert main(["sample", str(out), "--n", "2", "--prompt", "the c", "--length", "20", "--out", str(folder / "s.jsonl")]) == 0
    lines = [json.loads(line)["text"] for line in (folder / "s.jsonl").read_text().splitlines()]
    assert [line[:5] for line in lines] == ["the c"] * 2
    assert main(["score", str(out), "--text", "the cat sat", "--out", str(folder / "score.html")]) == 0
    capsys.readouterr()
    assert main(["train", "--run", str(out), "--resume"]) == 0
    assert "is finished" in capsys.readouterr().err
    # Without the runs that it was made of, too.
    state = checkpoint.read(next((out / "checkpoints").iterdir()))[1]
    assert any(name.startswith("parts.0.network") for name in state["weights.safetensors"])
    assert Run.open(out).dataset().source == str(path)


def test_a_hybrid_says_so_wherever_runs_are_told_apart(runs, capsys):
    folder, _, gpt, _ = runs
    out = folder / "told" / "hybrid"
    mixed = mixing.mix([gpt], orders=[2], out=out)
    assert main(["list", "runs", str(out.parent)]) == 0
    assert "mixture (hybrid)  " in capsys.readouterr().out
    page = out.parent / "page.html"
    assert main(["compare", str(out), str(gpt.path), "--out", str(page), "--quiet"]) == 0
    assert "mixture (hybrid)" in capsys.readouterr().out
    for shown in (page, out / "report.html"):
        text = shown.read_text(encoding="utf-8")
        assert "mixture (hybrid)" in text
        assert f"gpt ({gpt.path}), n-gram of order 2" in text
    assert kept(mixed.run).model == "mixture (hybrid)"
    assert "hybrid" not in (gpt.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one model alone"),
        (["--orders", "40"], "order must be"),
        (["--out", "."], "exists already"),
    ],
)
def test_what_cannot_be_mixed_is_told_in_a_sentence(runs, arguments, words, capsys):
    _, _, gpt, _ = runs
    if not arguments:
        with pytest.raises(UsageError, match=words):
            mixing.mix([gpt], orders=[])
        return
    assert main(["mix", str(gpt.path), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_runs_of_other_texts_and_texts_without_validation_are_refused(runs, tmp_path):
    _, path, gpt, _ = runs
    (tmp_path / "other.txt").write_text(TEXT * 50)
    other = api.train("ngram", tmp_path / "other.txt", run=tmp_path / "other", quiet=True, report=False)
    with pytest.raises(UsageError, match="other data"):
        mixing.mix([gpt, other])
    bare = api.train("ngram", path, run=tmp_path / "bare", data_options=Options(validation=0.0), quiet=True, report=False)
    with pytest.raises(UsageError, match=r"--data\.validation"):
        mixing.mix([bare])


def test_training_one_says_how_it_is_made(tmp_path, capsys):
    (tmp_path / "x.txt").write_text(TEXT * 20)
    assert main(["train", "mixture", "--data", str(tmp_path / "x.txt")]) == 2
    assert "pofx mix" in capsys.readouterr().err
