"""The bakeoff: what is chosen follows the numbers, what does not fit is left out, what was stopped goes on."""

import dataclasses
import json
import math
import os
import pathlib
import re
import signal
import textwrap
import threading

import numpy as np
import pytest
from scipy import stats

from pofx import advice, api, bakeoff, compare, data, discovery
from pofx.bakeoff import Bakeoff, Plan, open_plan
from pofx.cli import main
from pofx.comparison import Column, Member, side_by_side
from pofx.core import Budget, TrainingError, UsageError
from pofx.evaluate import Report, kept
from pofx.findings import Flag, Row
from pofx.run import Run

# ---------------------------------------------------------------------------------------------- what is recommended


def row(about, name, value, error=0.01, better="lower", **fields):
    return Row(about=about, name=name, unit=fields.pop("unit", "units"), model=value, error=error, n=100, better=better, **fields)


def comparison(part="validation", flags=(), check="memorisation", **columns):
    """Of columns by name, each a list of rows, or of such lists for several seeds; `flags` are of columns."""
    made = []
    for name, rows in columns.items():
        seeds = rows if isinstance(rows[0], list) else [rows]
        found = (Flag(check=check, sentence="copies"),) if name in flags else ()
        reports = [
            Report(model=name, data="d", part=part, fingerprint="f", step=1, rows=tuple(one), flags=found if seed == 0 else ())
            for seed, one in enumerate(seeds)
        ]
        made.append(
            Column(name=name, members=tuple(Member(run=f"{name}-{i}", seed=i, seconds=1.0, report=one) for i, one in enumerate(reports)))
        )
    return side_by_side(made)


def mmd(value, error=0.01, **fields):
    return row("samples", "kernel MMD²", value, error, floor=0.001, **fields)


def said(found, use, final=None):
    """The choices for a use, and what is said of them."""
    choices = [choice for choice in advice.choose(found) if choice.use == use]
    return [choice.take for choice in choices], " ".join(advice.sentences(choice, "validation", final) for choice in choices)


@pytest.mark.parametrize(("a", "b", "best"), [(0.1, 0.5, "a"), (0.5, 0.1, "b")])
def test_sampling_follows_the_distance(a, b, best):
    take, text = said(comparison(a=[mmd(a)], b=[mmd(b)]), "sampling")
    assert take == [best]
    assert f"For sampling take {best}. On the validation part its kernel MMD²" in text
    # The numbers, their intervals, the floor, and what would not have been evidence.
    for shown in (
        "0.1 ± 0.02 (n = 100)",
        "0.5 ± 0.02 (n = 100)",
        "by 0.4 ± 0.028",
        "real data have 0.001",
        "below 0.02772 are within the error",
    ):
        assert shown in text


def test_no_evidence_is_said():
    take, text = said(comparison(a=[mmd(0.1)], b=[mmd(0.11)], c=[mmd(0.9)]), "sampling")
    assert take == ["a"]
    assert "take a (b may be as good)" in text
    assert "to b, 0.11 ± 0.02 (n = 100), is no evidence" in text
    assert "ahead of c" in text


def test_a_spread_of_seeds_takes_evidence_away():
    one_each = comparison(a=[mmd(0.1)], b=[mmd(0.3)])
    seeds = comparison(a=[[mmd(0.1)], [mmd(0.02)]], b=[[mmd(0.3)], [mmd(0.5)]])
    assert "may be as good" not in said(one_each, "sampling")[1]
    take, text = said(seeds, "sampling")
    assert take == ["a"]
    assert "(b may be as good)" in text
    assert "(n = 100, 2 seeds, worst 0.1)" in text


def test_more_seeds_are_said_to_narrow_what_they_narrow():
    """For spreads that are equal, half of the interval of a difference over 3 seeds is as much of that over 2 as is said."""
    text = said(comparison(a=[[mmd(0.1)], [mmd(0.02)]], b=[[mmd(0.3)], [mmd(0.5)]]), "sampling")[1]
    assert "--seeds 3" in text
    share = float(re.search(r"about (\d+) % of that", text)[1]) / 100
    width = {k: stats.t.ppf(0.975, 2 * (k - 1)) * math.sqrt(2 / k) for k in (2, 3)}
    assert share == pytest.approx(width[3] / width[2], abs=0.01)
    assert "By luck of the seed alone two runs can lie" in text
    # What is clear needs no more seeds.
    assert "--seeds" not in said(comparison(a=[[mmd(0.1)], [mmd(0.11)]], b=[[mmd(3.0)], [mmd(3.01)]]), "sampling")[1]


@pytest.mark.parametrize("n", [1, 29])
def test_few_examples_are_no_recommendation(n):
    few = [dataclasses.replace(mmd(value), n=n) for value in (0.1, 0.5)]
    text = said(comparison(a=[few[0]], b=[few[1]]), "sampling")[1]
    assert f"For sampling take a (but n = {n} is too few examples to rely on)." in text
    assert "too few" not in said(comparison(a=[mmd(0.1)], b=[mmd(0.5)]), "sampling")[1]


def test_copies_are_not_recommended_for_sampling():
    rows = {"a": [mmd(0.1)], "b": [mmd(0.5)]}
    take, text = said(comparison(**rows, flags=("a",)), "sampling")
    assert take == ["b"]
    assert "a, 0.1 ± 0.02 (n = 100), is left out of this choice" in text
    take, text = said(comparison(**rows, flags=("a", "b")), "sampling")
    assert take == [None]
    assert "take none" in text


def test_the_distance_that_most_models_share_decides():
    kid = "kernel distance (KID)"
    rows = {"a": [mmd(0.1), row("samples", kid, 5.0)], "b": [row("samples", kid, 1.0)], "c": [row("samples", kid, 9.0)]}
    assert said(comparison(**rows), "sampling")[0] == ["b"]


def test_texts_are_ranked_by_their_ngrams():
    def rows(three, one):
        return [row("samples", "divergence of 1-grams", one), row("samples", "divergence of 3-grams", three)]

    assert said(comparison(a=rows(0.3, 0.9), b=rows(0.6, 0.1)), "sampling")[0] == ["a"]


def test_likelihoods_of_one_space_alone_are_ranked():
    def nll(space, value, unit="nats"):
        return row("likelihood", "negative log-likelihood", value, space=space, unit=unit)

    found = comparison(
        a=[nll("8-bit", 3.0, "bits"), nll("8-bit", 130.0)], b=[nll("8-bit", 4.0, "bits"), nll("8-bit", 170.0)], c=[nll("binary", 1.0)]
    )
    take, text = said(found, "likelihood")
    assert take == ["a", "c"]
    assert "ahead of b" in text
    assert "130" not in text
    assert "No other model here can be ranked by negative log-likelihood (binary)" in text


def test_features_go_by_probes_and_without_labels_by_reconstruction():
    def codes(value, labels):
        return row("codes", f"linear probe, {labels} labels", value, better="higher")

    def error(value):
        return row("reconstruction", "squared error of reconstructions", value)

    probed = comparison(a=[codes(0.9, "100"), codes(0.5, "1,000"), error(0.1)], b=[codes(0.8, "100"), codes(0.7, "1,000"), error(0.5)])
    assert said(probed, "features")[0] == ["b"]
    assert said(comparison(a=[error(0.1)], b=[error(0.5)]), "features")[0] == ["a"]
    assert said(comparison(a=[mmd(0.1)], b=[mmd(0.2)]), "features") == ([], "")


def test_speed_goes_by_seconds_and_says_that_no_interval_is_known():
    def seconds(value):
        return row("cost", "drawing", value, None, "neither", unit=advice.SPEED)

    take, text = said(comparison(a=[seconds(3.0)], b=[seconds(1.0)]), "speed")
    assert take == ["b"]
    assert "no interval of the difference is known" in text


@pytest.mark.parametrize(("trivial", "beaten"), [(0.5, True), (0.05, False)])
def test_a_trivial_model_that_is_no_worse_is_named(trivial, beaten):
    text = said(comparison(a=[mmd(0.1, baselines={"gaussian": trivial})]), "sampling")[1]
    assert ("A trivial model (gaussian)" in text) != beaten
    assert ("take a (but a trivial model is as good or better)." in text) != beaten


def test_flags_and_measures_that_say_otherwise_are_told():
    coverage = [row("samples", "coverage", value, better="higher", features="f") for value in (0.1, 0.9)]
    flagged = {"flags": ("a",), "check": "off the data"}
    text = said(comparison(a=[mmd(0.1), coverage[0]], b=[mmd(0.5), coverage[1]], **flagged), "sampling")[1]
    assert "take a (but flagged for off the data)" in text
    assert "coverage (f) says b" in text
    assert "says" not in said(comparison(a=[mmd(0.1), coverage[1]], b=[mmd(0.5), coverage[0]]), "sampling")[1]


def test_numbers_of_the_two_parts_are_kept_apart():
    final = comparison("test", a=[mmd(0.2)])
    _, text = said(comparison(a=[mmd(0.1)], b=[mmd(0.5)]), "sampling", final)
    assert text.index("On the validation part") < text.index("0.1 ± 0.02") < text.index("On the test part it is 0.2 ± 0.02")


# ---------------------------------------------------------------------------------------------------- candidates

BROKEN = """
    import torch
    from torch import nn
    from pofx.core import Config, Encodes, {capability}, Loss, Model, Optimizer

    class {cls}(Model, Encodes, {capability}):
        kinds = frozenset({{"vectors"}})
        class Config(Config):
            optimizer: Optimizer = Optimizer()
        def __init__(self, spec, config):
            super().__init__(spec, config)
            {build}
            self.weight = nn.Parameter(torch.ones(1))
        def loss(self, batch):
            return Loss({{"pain": (self.weight * float("nan")).sum()}})
        def encode(self, x, *, label=None):
            return x
        def sample(self, n, *, noise, label=None):
            return noise.normal(*self.spec.shape)
        def classify(self, x):
            return x
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """Three models from outside: one explodes, one cannot be built, one only classifies."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name, capability, build in (
        ("exploding", "Samples", "pass"),
        ("unbuilt", "Samples", "raise ValueError('no bricks')"),
        ("naming", "Classifies", "pass"),
    ):
        code = textwrap.dedent(BROKEN).format(cls=name.title(), capability=capability, build=build)
        (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("POFX_PATH", str(folder))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "points.npy"
    np.save(path, np.random.default_rng(0).standard_normal((240, 3)).astype(np.float32))
    return str(path)


def test_candidates_are_those_that_can(strangers, source):
    dataset = data.load(source)
    found, left_out = bakeoff.candidates(Plan(source=source, minutes=10), dataset)
    names = {name for name in discovery.names("models") if "vectors" in discovery.model(name).kinds}
    assert set(found) | set(left_out) == names
    assert not set(found) & set(left_out)
    assert {"vae", "gan", "autoencoder", "exploding"} <= set(found)
    assert "no bricks" in left_out["unbuilt"]
    assert "classifier" in left_out["naming"]


def test_none_that_fits_is_refused_with_reasons(strangers, source):
    with pytest.raises(UsageError, match=r"no bricks.*classifier"):
        bakeoff.candidates(Plan(source=source, minutes=10, models=("unbuilt", "naming")), data.load(source))


def test_too_few_minutes_are_refused_with_the_least(tmp_path, source):
    plan = Plan(source=source, minutes=0.1, models=("vae", "gan"), seeds=3)
    with pytest.raises(UsageError, match=r"1\.0 s .*--minutes 0\.5 "):
        Bakeoff(tmp_path / "b", plan, quiet=True)
    assert not (tmp_path / "b").exists()
    assert 60 * Bakeoff(tmp_path / "b", Plan(**{**vars(plan), "minutes": 0.5}), quiet=True).share == pytest.approx(bakeoff.LEAST)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minutes", "1"], "--data"),
        (["--data", "digits", "--minutes", "-1"], "more than 0"),
        (["--data", "digits", "--minutes", "0"], "more than 0"),
        (["--data", "digits", "--minutes", "1", "--seeds", "0"], "at least 1"),
        (["--data", "digits", "--minutes", "1", "--models", "vaee"], "did you mean vae"),
        (["--data", "digitz", "--minutes", "1"], "digits"),
        (["--data", "digits", "--minutes", "1", "--models", "ngram"], "ngram"),
        (["--data", "digits", "--minutes", "0.01"], "--minutes"),
    ],
)
def test_a_mistake_gets_one_sentence(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert main(["bakeoff", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ a bakeoff


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bakeoff, "LEAST", 0.1)


def test_a_bakeoff_is_stopped_goes_on_and_leaves_out_what_fails(short, strangers, source, tmp_path, monkeypatch, capsys):
    path = tmp_path / "b"
    options = {"source": source, "minutes": 0.036, "models": ("exploding", "vae", "autoencoder"), "seeds": 1, "options": data.Options()}
    trained = []
    real = api.train

    def train(name, *arguments, **named):
        trained.append(name)
        if name == "autoencoder":
            # The clock of training starts later than this one.
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return real(name, *arguments, **named)

    monkeypatch.setattr(api, "train", train)
    with pytest.raises(bakeoff.Stopped, match="go on with") as stop:
        Bakeoff(path, open_plan(path, **options), quiet=True).run()
    assert stop.value.code == 130
    assert trained == ["exploding", "vae", "autoencoder"]
    weights = {file: file.read_bytes() for file in (path / "vae-0" / "checkpoints").rglob("*") if file.is_file()}
    assert weights

    # Nothing but the folder needs to be named again; what differs is refused.
    with pytest.raises(UsageError, match="--minutes differs"):
        open_plan(path, None, 9.0, (), None, data.Options())
    monkeypatch.setattr(api, "train", real)
    plan = open_plan(path, None, None, (), None, data.Options())
    assert plan == Plan(**options)
    sentences = Bakeoff(path, plan, quiet=True).run()
    assert {file: file.read_bytes() for file in (path / "vae-0" / "checkpoints").rglob("*") if file.is_file()} == weights
    assert Run.read(path / "autoencoder-0").info["status"] == "finished"
    assert Run.read(path / "autoencoder-0").info["training"]["minutes"] == pytest.approx(0.012)

    state = json.loads((path / "bakeoff.json").read_text(encoding="utf-8"))
    assert list(state["left_out"]) == ["exploding"]
    assert "not finite" in state["left_out"]["exploding"]
    assert state["sentences"] == sentences
    assert {choice["use"] for choice in state["choices"]} == set(advice.USES)
    taken = {choice["take"] for choice in state["choices"]}
    assert taken <= {"vae", "autoencoder"}
    # Chosen on validation; only what was chosen is measured on test.
    assert state["validation"]["part"] == "validation"
    assert {column["name"] for column in state["test"]["columns"]} == taken
    for name in ("vae", "autoencoder"):
        assert kept(Run.open(path / f"{name}-0")).part == ("test" if name in taken else "validation")
    page = (path / "report.html").read_text(encoding="utf-8")
    assert page.index("What to take") < page.index("Comparison on the validation part")
    assert "not finite" in page

    # Finished: nothing is trained or measured again, and the same is said.
    monkeypatch.setattr(compare, "evaluate", None)
    monkeypatch.setattr(api, "train", None)
    assert main(["bakeoff", "--run", str(path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert all(sentence in out for sentence in sentences)


def test_all_that_fail_are_named(short, strangers, source, tmp_path):
    plan = Plan(source=source, minutes=0.02, models=("exploding",), seeds=1)
    with pytest.raises(TrainingError, match=r"exploding: seed 0: .*not finite"):
        Bakeoff(tmp_path / "b", plan, quiet=True).run()


def test_without_validation_the_choice_is_called_flattered(short, source, tmp_path):
    plan = Plan(source=source, minutes=0.02, models=("vae",), seeds=1, options=data.Options(validation=0.0))
    sentences = Bakeoff(tmp_path / "b", plan, quiet=True).run()
    assert any("no validation part" in sentence and "flatter" in sentence for sentence in sentences)
    assert not any("chosen by" in sentence for sentence in sentences)
    assert pathlib.Path(tmp_path / "b" / "report.html").exists()


def test_the_recipe_is_asked_for_the_share(short, source, tmp_path, monkeypatch):
    """The minutes of the whole are divided among models and seeds before any recipe is asked."""
    asked = []
    real = api.recipe

    def recipe(cls, name, spec, budget):
        asked.append(budget)
        return real(cls, name, spec, budget)

    monkeypatch.setattr(api, "recipe", recipe)
    Bakeoff(tmp_path / "b", Plan(source=source, minutes=6, models=("vae", "gan"), seeds=3), quiet=True)
    assert asked == [Budget(minutes=1.0)] * 2
