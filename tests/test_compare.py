"""Comparisons: which difference is evidence, what may stand in one line, what is refused, what the page holds."""

import dataclasses
import json
import math
import re
import shutil

import numpy as np
import pytest
from refusals import refused
from rich.console import Console
from scipy import stats

from pofx import compare, data, report
from pofx.cli import main
from pofx.comparison import Column, Member, side_by_side
from pofx.core import UsageError
from pofx.data.text import TokenCodec
from pofx.evaluate import Report, evaluate, keep, kept
from pofx.findings import Draws, Flag, Row, half, mean, number, rounded
from pofx.run import Run, same_data, trained_on

N = 200


def row(values, name="loss", about="samples", **fields):
    """A row of one value an example."""
    value, error, draws = mean(values)
    return Row(**{"about": about, "name": name, "unit": "nats", "model": value, "error": error, "n": len(values), "draws": draws, **fields})


def member(*rows, seed=0, flags=(), model="m", **fields):
    found = Report(model=model, data="d", part="test", fingerprint="f", step=1, rows=rows, flags=flags, **fields)
    return Member(run=f"{model}-{seed}", seed=seed, seconds=1.0, report=found)


def comparison(**columns):
    """Of columns by name, each a row, or a list of a row for each seed."""
    return side_by_side(
        [
            Column(name=name, members=tuple(member(one, seed=seed) for seed, one in enumerate(rows if isinstance(rows, list) else [rows])))
            for name, rows in columns.items()
        ]
    )


def normal(seed, n=N):
    return np.random.default_rng(seed).standard_normal(n)


# ------------------------------------------------------------------------------------------------ what is evidence


def test_a_paired_difference_is_clear_where_intervals_overlap():
    hard, noise = 5 * normal(0), 0.1 * normal(1)
    one, other = row(hard), row(hard + 0.05 + noise)
    line = comparison(one=one, other=other).lines[0]
    assert abs(one.model - other.model) < one.error
    assert line.best == "one"
    difference = line.difference("one", "other")
    oracle = stats.ttest_rel(hard, hard + 0.05 + noise)
    assert difference.value == pytest.approx(one.model - other.model)
    assert difference.half_width == pytest.approx(abs(difference.value / oracle.statistic) * stats.norm.ppf(0.975))


def test_runs_of_other_seeds_are_measured_on_the_same_examples_and_are_pairs():
    hard, noise = 5 * normal(0), 0.1 * normal(1)
    columns = [
        Column(name="one", members=(member(row(hard), seed=0),)),
        Column(name="other", members=(member(row(hard + 0.05 + noise), seed=1),)),
    ]
    line = side_by_side(columns).lines[0]
    independent = math.hypot(line.cells["one"].errors[0], line.cells["other"].errors[0])
    assert line.difference("one", "other").half_width < independent / 5
    assert line.best == "one"


def test_the_best_must_be_clear_of_every_other():
    hard = normal(0)
    first, second, third = row(hard), row(hard + 0.01 + normal(1)), row(hard + 3 + normal(2))
    assert comparison(a=first, c=third).lines[0].best == "a"
    assert comparison(a=first, b=second, c=third).lines[0].best is None


def test_equal_models_are_never_told_apart():
    assert comparison(a=row(normal(0)), b=row(normal(0))).lines[0].best is None


def test_one_column_alone_is_not_the_best():
    assert comparison(a=row(normal(0))).lines[0].best is None


@pytest.mark.parametrize(
    ("better", "floor", "best"), [("lower", None, "low"), ("higher", None, "high"), ("floor", 2.2, "high"), ("neither", None, None)]
)
def test_the_best_follows_the_direction(better, floor, best):
    hard = 0.1 * normal(0)
    fields = {"better": better, "floor": floor}
    line = comparison(low=row(hard, **fields), high=row(hard + 2, **fields)).lines[0]
    assert line.best == best


def test_distances_to_a_floor_between_two_models_are_added_up():
    """One above and one below the floor by as much: on which side a model errs is no evidence."""
    noise = normal(0)
    line = comparison(below=row(noise - 1, better="floor", floor=0.0), above=row(noise + 1, better="floor", floor=0.0)).lines[0]
    difference = line.difference("below", "above")
    # |below| + |above| moves by twice the noise that both share.
    assert difference.half_width == pytest.approx(1.96 * 2 * noise.std(ddof=1) / math.sqrt(N), rel=1e-4)
    assert line.best is None


def test_without_an_error_nothing_is_best():
    rows = [Row(about="samples", name="modes", unit="of 8", model=value, error=None, n=9, better="higher") for value in (8, 3)]
    assert comparison(a=rows[0], b=rows[1]).lines[0].best is None
    # Seeds that all agree say nothing of others.
    assert comparison(a=[rows[0]] * 2, b=[rows[1]] * 2).lines[0].best is None


def test_what_is_no_number_is_not_ranked():
    line = comparison(a=row(normal(0)), b=row(normal(1) + 9), c=row(np.full(N, np.nan))).lines[0]
    assert line.ranked == ["a", "b"]
    assert line.best == "a"


def exact(value, **fields):
    """A row that was measured without error."""
    return Row(about="samples", name="loss", unit="nats", model=value, error=0.0, n=5, **fields)


def test_seeds_are_compared_as_welch_does():
    a, b = [1.0, 1.3, 0.8, 1.1], [2.0, 3.5, 2.2]
    line = comparison(a=[exact(v) for v in a], b=[exact(v) for v in b]).lines[0]
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    difference = line.difference("a", "b")
    assert (difference.value - difference.half_width, difference.value + difference.half_width) == pytest.approx(interval)
    assert line.half_width("a") == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(a))


def test_equal_models_seldom_differ_by_seeds():
    """At 95 %, one time in twenty or more seldom; with normal quantiles for three seeds it would be one in eight."""
    random = np.random.default_rng(0)
    clear = [
        comparison(a=[exact(v) for v in random.standard_normal(3)], b=[exact(v) for v in random.standard_normal(3)])
        .lines[0]
        .difference("a", "b")
        .clear
        for _ in range(300)
    ]
    assert np.mean(clear) < 0.08


def test_one_seed_borrows_the_spread_of_the_others():
    line = comparison(alone=exact(1.0), many=[exact(v) for v in (1.5, 2.0, 2.5)]).lines[0]
    assert line.spread("alone") == line.spread("many") == (pytest.approx(0.25), 2)
    assert line.best is None
    assert comparison(alone=exact(1.0), many=[exact(v) for v in (1.99, 2.0, 2.01)]).lines[0].best == "alone"


def test_the_least_evidence_grows_with_the_spread_of_seeds():
    narrow = comparison(a=[exact(v) for v in (1.0, 1.1)], b=[exact(v) for v in (2.0, 2.1)]).lines[0]
    wide = comparison(a=[exact(v) for v in (1.0, 2.0)], b=[exact(v) for v in (2.0, 3.0)]).lines[0]
    assert wide.least == pytest.approx(10 * narrow.least)
    assert narrow.least == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(2 * 0.005))


def test_subsets_pair_with_subsets_alone():
    examples, subsets = Draws("examples", normal(0, 40)), Draws("subsets", normal(0, 40))
    a = Row(about="samples", name="d", unit="u", model=0.0, error=0.1, n=9, draws=examples)
    b = dataclasses.replace(a, model=1.0, draws=subsets)
    assert comparison(a=a, b=b).lines[0].difference("a", "b").half_width == pytest.approx(1.96 * math.hypot(0.1, 0.1), rel=1e-4)


# ------------------------------------------------------------------------------------------- what stands in one line


@pytest.mark.parametrize("other", [{"space": "8-bit"}, {"unit": "bits"}, {"features": "others"}, {"n": 7}])
def test_what_is_not_comparable_never_ranks(other):
    found = comparison(a=row(normal(0), space="binary"), b=row(normal(1) + 9, **{"space": "binary", **other}))
    assert [list(line.cells) for line in found.lines] == [["a"], ["b"]]
    assert [line.best for line in found.lines] == [None, None]


def test_seeds_show_their_median_and_worst():
    values = (1.0, 7.0, 2.0)
    texts = {
        better: comparison(a=[exact(v, better=better, floor=6.0) for v in values]).lines[0].texts("a")
        for better in ("lower", "higher", "floor", "neither")
    }
    assert texts == {
        # Of three values t = 4.30, times their standard deviation 3.21 over the root of 3.
        "lower": ["2 ± 8", "worst 7"],
        "higher": ["2 ± 8", "worst 1"],
        "floor": ["2 ± 8", "worst 1"],
        "neither": ["2", "1 to 7"],
    }


def printed(found, width):
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(found)
    return capture.get()


@pytest.mark.parametrize("models", [2, 4, 9])
def test_a_comparison_fits_a_terminal(models):
    """Every number of every model is there, none with an exponent, the features are said once."""
    names = [f"model_{i}" for i in range(models)]
    shared = {"floor": 3.21e-5, "baselines": {"gaussian": 12_345.6}, "features": "64 components of something"}
    columns = {name: [row(normal(i + 9 * k) + i, **shared) for k in range(2)] for i, name in enumerate(names)}
    text = printed(comparison(**columns), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert not re.search(r"\d[eE][-+]\d", text)
    assert text.count("64 components") == text.count("samples, n = ")
    assert text.count("±") == models + text.count("; ±")
    assert "0.000032" in text
    assert "12,346" in text
    for name in names:
        assert name in text


def test_a_flagged_model_is_never_bold():
    flag = Flag(check="memorisation", sentence="copies")
    columns = [
        Column(name="copier", members=(member(row(0.1 * normal(0)), flags=(flag,)),)),
        Column(name="other", members=(member(row(0.1 * normal(1) + 3)),)),
    ]
    found = side_by_side(columns)
    line = found.lines[0]
    assert line.best == "copier"
    texts, bold = found.marked(line, "copier")
    assert not bold
    assert texts[0].endswith(" !")
    assert "<strong>" not in compare.table(found).split("<table", 1)[1]
    assert "copier !" in compare.table(found)
    honest = side_by_side([dataclasses.replace(columns[0], members=(member(row(0.1 * normal(0))),)), columns[1]])
    assert honest.marked(line, "copier") == (line.texts("copier"), True)
    assert "<strong>" in compare.table(honest)


def test_numbers_have_no_exponent():
    for value in (3.0867e-5, -1.315e-6, 0.00012345, 120.0, 12_345.6, 7e8, 0.0):
        for text, shown in ((number(value), value), (half(abs(value)), abs(value))):
            assert "e" not in text
            assert float(text.replace(",", "")) == pytest.approx(shown, rel=0.05)
    assert rounded(0.0030684, 0.0021) == "0.0031"
    assert rounded(563.44, 330.0) == "563"
    assert rounded(0.5, None) == "0.5"


def test_what_is_said_of_one_model_alone_stays_with_it():
    line = comparison(a=row(normal(0), note="exact; 8-bit"), b=row(normal(1), note="upper bound; 8-bit")).lines[0]
    assert (line.row.note, line.cells["a"].note, line.cells["b"].note) == ("8-bit", "exact", "upper bound")


def test_json_has_no_nan_and_keeps_the_numbers():
    found = comparison(a=row(normal(0)), b=[row(normal(1) + 9), row(normal(2) + 9)], c=row(np.full(N, np.nan)))
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))["lines"][0]
    assert values["best"] == "a"
    assert values["models"]["b"]["values"] == list(found.lines[0].cells["b"].values)
    assert values["models"]["c"]["values"] == [None]


def fake(folder, model="m", seed=0, config=None, minutes=1.0, step=5):
    info = {"model": model, "config": config or {}, "training": {"seed": seed, "minutes": minutes}, "seconds": 3.0}
    return Run(folder, info, step), member(row(normal(seed)), seed=seed).report


def test_runs_that_differ_in_the_seed_share_a_column(tmp_path):
    runs = [fake(tmp_path / "a", seed=0), fake(tmp_path / "b", seed=1), fake(tmp_path / "c", seed=0, minutes=2.0)]
    runs += [fake(tmp_path / "d", seed=0, config={"beta": 4}), fake(tmp_path / "e", seed=1), fake(tmp_path / "f", model="other")]
    columns = compare.columns(runs)
    # e has the seed of b, so that the two are no two seeds.
    assert [[one.run.split("/")[-1] for one in column.members] for column in columns] == [
        ["a@5", "b@5"], ["e@5"], ["c@5"], ["d@5"], ["f@5"],
    ]  # fmt: skip
    assert [column.name for column in columns] == ["m a", "m e", "m c", "m d", "other"]


def test_checkpoints_of_one_run_have_names_of_their_own(tmp_path):
    columns = compare.columns([fake(tmp_path / "a", step=5), fake(tmp_path / "a", step=9)])
    assert [column.name for column in columns] == ["m a@5", "m a@9"]


def test_folders_that_say_their_model_are_not_told_it_again(tmp_path):
    columns = compare.columns([fake(tmp_path / "m-digits-001", step=5), fake(tmp_path / "m-digits-001", step=9), fake(tmp_path / "mine")])
    assert [column.name for column in columns] == ["m-digits-001@5", "m-digits-001@9", "m mine"]


# ------------------------------------------------------------------------------------------------------ real runs

TINY = ["--steps", "3", "--batch-size", "16", "--model.latent-dim", "2", "--model.hidden", "8", "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two models of points, whose data have a name that HTML must escape."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("<i>&x", "other")):
        np.save(folder / f"{name}.npy", np.random.default_rng(seed).standard_normal((240, 3)).astype(np.float32))
    for model in ("vae", "autoencoder"):
        assert main(["train", model, "--data", str(folder / "<i>&x.npy"), "--run", str(folder / model), *TINY]) == 0
    assert main(["train", "vae", "--data", str(folder / "other.npy"), "--run", str(folder / "elsewhere"), *TINY]) == 0
    return folder


def test_refusals(runs, capsys):
    vae, other = runs / "vae", runs / "autoencoder"
    assert "two runs" in refused(capsys, "compare", vae)
    assert "twice" in refused(capsys, "compare", vae, f"{vae}@last")
    err = refused(capsys, "compare", vae, other, runs / "elsewhere")
    assert "elsewhere" in err
    assert "same data" in err
    assert "no run" in refused(capsys, "compare", vae, runs / "none")
    assert ".html" in refused(capsys, "compare", vae, other, "--out", "page.pdf")


def test_a_folder_of_runs_stands_for_them(runs, tmp_path):
    inside = tmp_path / "bakeoff"
    inside.mkdir()
    for name in ("vae", "autoencoder"):
        shutil.copytree(runs / name, inside / name)
    (inside / "vae" / "copy").mkdir()
    # One that failed before its first checkpoint.
    (inside / "gan").mkdir()
    info = json.loads((inside / "vae" / "run.json").read_text())
    (inside / "gan" / "run.json").write_text(json.dumps(info | {"last": None, "best": None}))
    found = compare.gather([inside])
    assert [column.name for column in found] == ["autoencoder", "vae"]
    with pytest.raises(UsageError, match="two runs"):
        compare.gather([inside / "vae"])


def self_contained(page):
    """Whether a page needs nothing from elsewhere, and nothing in it runs."""
    sources = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|url\(", page)
    assert 'content="width=device-width, initial-scale=1"' in page
    # Every table of numbers scrolls inside its own container.
    assert page.count('<table class="numbers">') == page.count('<div class="wide"><table class="numbers">') > 0


def test_two_runs_are_measured_once_and_written_as_a_page(runs, tmp_path, capsys, monkeypatch):
    arguments = [
        "compare",
        str(runs / "vae"),
        str(runs / "autoencoder"),
        "--out",
        str(tmp_path / "c.html"),
        "--json",
        str(tmp_path / "c.json"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "kernel MMD²" in printed
    assert "For sampling take" in printed
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    self_contained(page)
    assert "<strong>For sampling take" in page
    assert "&lt;i&gt;&amp;x" in page
    assert "<i>" not in page
    assert page.count("<img") >= 3
    # The second time nothing is measured.
    monkeypatch.setattr(compare, "evaluate", None)
    first = (tmp_path / "c.json").read_bytes()
    assert main([*arguments[:3], "--json", str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_bytes() == first
    values = json.loads(first)
    assert {name for line in values["lines"] for name in line["models"]} == {"vae", "autoencoder"}
    # Exact where a grid of codes resolves every posterior, else a bound.
    assert {line["space"].partition(",")[0] for line in values["lines"] if line["about"] == "likelihood"} == {"density"}


def test_another_part_is_measured_anew(runs):
    run = Run.open(runs / "autoencoder")
    keep(run, evaluate(run, part="validation"))
    assert compare.measured(run).part == "test"
    assert kept(run, "test").part == "test"
    assert compare.measured(run, "validation").part == "validation"


def test_measuring_one_part_leaves_the_other_part_s_evaluation(runs, monkeypatch):
    run = Run.open(runs / "autoencoder")
    for part in ("validation", "test", "validation"):
        compare.measured(run, part)
    found = {part: kept(run, part) for part in ("validation", "test")}
    assert [report.part for report in found.values()] == ["validation", "test"]
    assert all(any(row.draws is not None for row in report.rows) for report in found.values())
    monkeypatch.setattr(compare, "evaluate", None)
    assert [compare.measured(run, part) for part in found] == list(found.values())


def test_runs_on_data_of_other_content_are_refused(tmp_path):
    def run(seed, fingerprint):
        return Run(tmp_path, {"data": {"source": "ring", "options": {}, "fingerprint": fingerprint}, "training": {"seed": seed}}, 1)

    same_data(*map(trained_on, (run(0, "one"), run(1, "one"))))
    with pytest.raises(UsageError, match="same data"):
        same_data(*map(trained_on, (run(0, "one"), run(1, "other"))))


# ---------------------------------------------------------------------------------------------------- the run's page


def test_the_page_of_a_run_shows_its_evaluation(runs):
    run = Run.open(runs / "vae")
    flag = Flag(check="memorisation", sentence="5 <b>copies</b> & more")
    found = Report(
        model="vae", data="d", part="test", fingerprint=run.info["data"]["fingerprint"], step=run.step, looks=7,
        rows=(row(normal(0), baselines={"<gaussian>": 3.0}, floor=0.25, note="a <note>"),), flags=(flag,), warnings=("few & far",),
    )  # fmt: skip
    before = kept(run)
    keep(run, found)
    try:
        page = report.write(run).read_text(encoding="utf-8")
    finally:
        if before is not None:
            keep(run, before)
    self_contained(page)
    for shown in (
        "5 &lt;b&gt;copies&lt;/b&gt; &amp; more",
        "&lt;gaussian&gt;",
        "a &lt;note&gt;",
        "few &amp; far",
        "look 7",
        "0.25",
        found.rows[0].value,
    ):
        assert shown in page
    # What must not be missed comes before everything else.
    assert page.index('href="#evaluation">memorisation') < page.index("What was trained on what")
    assert page.index("copies&lt;/b&gt;") < page.index("&lt;gaussian&gt;")


def test_the_page_and_the_list_begin_with_what_says_most(runs, capsys):
    run = Run.open(runs / "vae")
    keep(run, evaluate(run))
    report.write(run)
    top = (run.path / report.NAME).read_text(encoding="utf-8").split("What was trained on what")[0]
    headline = kept(run).headline
    assert {row.about for row in headline} == {"samples", "likelihood", "reconstruction"}
    for row in headline:
        assert row.value in top
        assert f"n = {row.n:,}" in top
    assert main(["list", "runs", str(runs)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(str(run.path)))
    assert headline[0].value in line
    assert headline[0].name == "kernel MMD²"


def test_data_of_another_kind_are_refused_with_both_kinds(runs, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("to be or not to be " * 100)
    err = refused(capsys, "evaluate", runs / "vae", "--data", tmp_path / "t.txt")
    assert "is a text, and the run models vectors" in err
    # Arrays are read as the run's kind only where they can be.
    images, points = np.zeros((4, 8, 8), dtype=np.uint8), np.zeros((4, 2), dtype=np.float32)
    codec = data.from_arrays(images).codec
    with pytest.raises(UsageError, match="holds vectors, and the run models images"):
        data.from_arrays(points, codec=codec)
    with pytest.raises(UsageError, match="holds images, and the run models tokens"):
        data.from_arrays(images, codec=TokenCodec(kind="bytes"))
    err = refused(capsys, "evaluate", runs / "vae", "--part", "foo")
    assert "None" not in err
    assert "'test'" in err


def test_the_page_of_a_run_survives_an_unreadable_evaluation(runs):
    run = Run.open(runs / "elsewhere")
    (run.path / "evaluation.json").write_text("{}")
    assert "unreadable" in report.write(run).read_text(encoding="utf-8")
