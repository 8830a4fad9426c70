"""Samples as readers know them: rows of a table in its own words, texts as they are, nothing of either taken for HTML."""

import csv
import re

import pytest
import torch

import pofx
from pofx import api, data, discovery, examples, specimens
from pofx.core import Samples, UsageError


@pytest.fixture
def table(tmp_path):
    jobs = ["clerk", "<b>cook</b>", "smith & son"]
    rows = [[20 + i % 50, jobs[i % 3], 30_000 + 137.25 * i, "" if i % 7 == 0 else 1.5 + i / 100] for i in range(60)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["age", "job", "income", "height"], *rows])
    return data.load(str(tmp_path / "t.csv")), rows


def test_cells_are_those_of_the_file(table):
    dataset, rows = table
    names, cells = dataset.codec.cells(dataset.train.batch(dataset.train.positions()).x)
    assert names == ["age", "job", "income", "height"]
    known = {(str(age), job): (income, height) for age, job, income, height in rows}
    for age, job, income, height in cells:
        wanted = known[age, job]
        # Five digits are shown, and no exponent.
        assert float(income) == pytest.approx(wanted[0], rel=1e-4)
        assert "e" not in income
        assert height == "" if wanted[1] == "" else float(height) == pytest.approx(wanted[1], rel=1e-4)


def test_rows_of_each_model_stand_below_real_ones(table):
    dataset, _ = table
    assert specimens.readable(dataset)
    held = examples.held_out(dataset)[1]
    page = specimens.show({"vae": examples.first(held, 2).x, "gan": dataset.train.x[:2]}, dataset)
    groups = re.split(r'<tr class="group">', page)
    assert [len(re.findall("<tr>", group)) for group in groups] == [1, 2, 2, 2]
    assert groups[1].split("</td></tr>", 1)[1] == groups[2].split("</td></tr>", 1)[1]
    assert "<b>" not in page
    assert "&lt;b&gt;cook" in page


def test_texts_are_shown_as_text(tmp_path):
    (tmp_path / "t.txt").write_text("To be, or <not>\x1b[31m to be\n" * 400)
    dataset = data.load(str(tmp_path / "t.txt"))
    page = specimens.show({"gpt": dataset.codec.encode("or <not>\x1b[31m").long()[None]}, dataset)
    assert "or &lt;not&gt;·[31m" in page
    assert "\x1b" not in page
    assert page.count("<pre") == 2


def test_texts_are_drawn_at_each_temperature_of_a_model_that_has_one(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("To be, or not to be, that is the question:\n" * 100)
    run = pofx.train("ngram", str(tmp_path / "t.txt"), run=tmp_path / "run", quiet=True, order=3)
    model, dataset = run.model(), run.dataset()
    found = specimens.each("ngram", model, dataset)
    assert list(found) == [f"ngram, temperature {t}" for t in ("0.5", "0.8", "1")]
    for name, x in found.items():
        assert torch.equal(x, examples.draw(model, 2, temperature=float(name.rpartition(" ")[2])))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert all(f"<h3>{name}</h3>" in page for name in found)
    # Not every model of texts has the knob.
    sample = type(model).sample
    monkeypatch.setattr(type(model), "sample", lambda self, n, *, noise, label=None: sample(self, n, noise=noise, label=label))
    assert list(specimens.each("ngram", model, dataset)) == ["ngram"]


def test_points_are_looked_at_and_models_that_draw_nothing_are_refused():
    dataset = data.load("ring")
    assert not specimens.readable(dataset)
    assert dataset.codec.cells(dataset.train.x[:2]) is None
    digits = data.load("digits")
    model = api.build(*_of("classifier", digits), seed=0)
    assert Samples not in model.capabilities
    with pytest.raises(UsageError, match="draws new data"):
        specimens.draw(model, digits)


def _of(name, dataset):
    cls = discovery.model(name)
    return cls, dataset.spec, cls.recipe(dataset.spec, None).config


def test_long_texts_are_cut():
    assert specimens.printable("a\nb\nc", 2) == "a\nb\n…"
    assert specimens.printable("a\tb") == "a   b"
