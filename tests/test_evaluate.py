"""Metrics against closed forms, baselines against counting, reports against what they were made of."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch

import pofx.evaluate
from pofx import baselines, data, discovery, examples
from pofx.core import DataSpec, Samples, UsageError
from pofx.data.dataset import Split
from pofx.evaluate import Report, evaluate, keep, kept, save
from pofx.findings import Row
from pofx.metrics import mode_coverage
from pofx.run import Run
from pofx.subject import Subject


def build(name: str, source: str, **config):
    torch.manual_seed(0)
    dataset = data.load(source)
    cls = discovery.model(name)
    return cls(dataset.spec, cls.Config(**config)), dataset


def test_mode_coverage_counts():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = np.array([[0.1, 0.0], [10.0, 0.2], [10.0, 0.31], [5.0, 5.0]])
    assert mode_coverage(x, centres, 0.1)[:2] == (2, 0.5)


@pytest.mark.parametrize("name", ["unigram", "bigram", "n-gram"])
def test_ngrams_sum_to_one_over_all_windows(name):
    text = torch.tensor([0, 1, 0, 1, 1, 0, 2])  # 3 never occurs, and nothing follows 2
    score = baselines.fit("tokens", DataSpec("tokens", (), vocabulary=4), Split(text, tokens=True))[name]
    windows = torch.tensor(list(itertools.product(range(4), repeat=3)))
    assert float(score(windows).exp().sum()) == pytest.approx(1)


def test_bigram_by_hand(monkeypatch):
    text = torch.tensor([0, 1, 0, 1, 1])
    expected = (2 + 1 * (4 / 7)) / (2 + 1)  # 0 is followed twice by 1 and by nothing else; unigram(1) = (3 + 1) / (5 + 2)
    for part in (1, 2, 1 << 22):  # counted in parts as at once
        monkeypatch.setattr(baselines, "PART", part)
        ngram = baselines.NGram(text, 2)
        assert float(ngram.bigram(torch.tensor([[0, 1]])).exp()) == pytest.approx(3 / 7 * expected)


def test_binary_baseline_sums_to_one_over_all_images():
    train = Split(torch.tensor([[1.0, 0.0], [1.0, 1.0]]).view(2, 1, 1, 2))
    score = baselines.histogram(train, 2)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2))).view(4, 1, 1, 2)
    p = score(images).exp()
    assert float(p.sum()) == pytest.approx(1)
    assert float(p[3]) == pytest.approx(3 / 4 * 2 / 4)


def test_gaussian_baseline_finds_the_entropy():
    random = np.random.default_rng(3)
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    x = torch.from_numpy(random.multivariate_normal([1, 2], covariance, 20_000)).float()
    entropy = math.log(2 * math.pi * math.e) + 0.5 * math.log(np.linalg.det(covariance))
    assert -float(baselines.gaussian(Split(x[:10_000]))(x[10_000:]).mean()) == pytest.approx(entropy, abs=0.03)


def test_table_baseline_is_a_distribution_over_categories(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("colour\n" + "\n".join(["red", "blue", "red", "green"] * 20) + "\n")
    dataset = data.load(path)
    score = baselines.columns(dataset.spec, dataset.train)
    assert float(score(torch.eye(*dataset.spec.shape)).exp().sum()) == pytest.approx(1)


def test_tokens_are_all_scored_and_units_agree():
    model, dataset = build("gpt", "python_docs", window=64, width=32, depth=1, heads=1)
    per_token, per_window = [row for row in evaluate(model, dataset).rows if row.about == "likelihood"]
    assert per_token.n == len(dataset.test)
    assert per_window.n == -(-len(dataset.test) // 64)
    assert per_token.model * per_token.n == pytest.approx(per_window.model * per_window.n)
    # Untrained, the network knows the size of the vocabulary and nothing else.
    assert per_token.baselines["n-gram"] < per_token.baselines["bigram"] < per_token.baselines["unigram"] < per_token.model
    assert per_token.model == pytest.approx(math.log(dataset.spec.vocabulary), rel=0.1)


def test_of_a_long_text_some_windows_are_scored_which_no_order_of_the_file_decides(monkeypatch):
    model, dataset = build("ngram", "python_docs", window=64)
    cut = dataclasses.replace(dataset, train=Split(dataset.train.x[:9000], tokens=True), test=Split(dataset.test.x[:6001], tokens=True))
    model.fit(cut.train.batches(8, window=64))
    monkeypatch.setattr("pofx.metrics.likelihood.TOKENS", 20 * 64)
    some, of_windows = [row for row in evaluate(model, cut).rows if row.about == "likelihood"]
    assert (some.n, of_windows.n) == (20 * 64, 20)
    assert "20 windows drawn by a seed" in some.note
    every = next(row for row in evaluate(model, cut, full=True).rows if row.about == "likelihood")
    assert every.n == 6001
    assert "drawn by a seed" not in every.note
    with examples.asking(model):
        first = -float(model.log_prob(next(cut.test.batches(20, window=64)).x).nats.sum()) / (20 * 64)
    assert some.model != pytest.approx(first, rel=1e-6)
    assert some.model == pytest.approx(every.model, rel=0.1)


def test_densities_are_in_units_of_the_source():
    x = np.random.default_rng(4).standard_normal((2000, 2)).astype(np.float32)
    found = []
    for scale in (1, 10):
        dataset = data.from_arrays(x * scale)
        cls = discovery.model("vae")
        torch.manual_seed(0)
        found.append(evaluate(cls(dataset.spec, cls.Config(latent_dim=2, hidden=(8,), activation="silu")), dataset).rows[0])
    one, ten = found
    assert ten.baselines["gaussian"] - one.baselines["gaussian"] == pytest.approx(2 * math.log(10), abs=1e-4)
    # Of codes in the plane it is an exact integral here, without the noise of a bound.
    assert ten.model - one.model == pytest.approx(2 * math.log(10), abs=1e-4)


def test_report_of_images_and_its_way_through_json(tmp_path):
    model, dataset = build("vae", "digits", hidden=(16,), latent_dim=2)
    model.train()
    report = evaluate(model, dataset)
    assert model.training
    names = [row.name for row in report.rows]
    assert {"negative log-likelihood", "PSNR of reconstructions"} <= set(names)
    assert report.rows[0].model * 64 * math.log(2) == pytest.approx(report.rows[1].model)
    save(report, tmp_path / "r.json")
    assert Report.from_json(json.loads((tmp_path / "r.json").read_text())) == report
    shown = str(report)
    for row in report.rows:
        assert row.name.split()[0] in shown
    assert "histogram per pixel" in shown


def test_module_answers_as_the_function():
    assert callable(pofx.evaluate)
    with pytest.raises(UsageError, match="data set"):
        pofx.evaluate(build("vae", "digits", hidden=(16,))[0])


def test_nothing_held_out_is_refused():
    model, dataset = build("vae", "digits", hidden=(16,))
    bare = type(dataset)(**{**vars(dataset), "test": None, "validation": None})
    with pytest.raises(UsageError, match="neither a test nor a validation part"):
        evaluate(model, bare)


def test_true_samples_find_every_mode():
    model, dataset = build("vae", "ring", hidden=(16,))

    class Truth(type(model), Samples):
        capabilities = frozenset({Samples})

        def sample(self, n, *, noise, label=None):
            return dataset.validation.batch(torch.arange(noise.first, noise.first + n)).x

    rows = {row.name: row for row in evaluate(Truth(dataset.spec, model.config), dataset).rows}
    assert rows["modes found"].model == 8
    assert rows["samples within 3 sigma of a mode"].model > 0.97 > rows["samples within 3 sigma of a mode"].baselines["gaussian"]
    mmd = rows["kernel MMD²"]
    assert mmd.model < mmd.baselines["gaussian"] / 5


def test_every_number_says_what_it_stands_on():
    model, dataset = build("vae", "digits", hidden=(16,), latent_dim=2)
    report = evaluate(model, dataset)
    for row in report.rows:
        assert row.n >= 1
        assert row.about == "cost" or row.better == "neither" or row.error is not None or row.name == "missing classes", row.name
        if row.about in ("samples", "memorisation") and row.name != "sharpness":
            assert row.floor is not None, row.name
            assert row.features or row.about == "labels", row.name
    assert any("few" in sentence for sentence in report.warnings)  # 360 held-out digits


def test_the_floor_of_a_density_is_the_truth():
    model, dataset = build("vae", "ring", hidden=(16,))
    row = next(row for row in evaluate(model, dataset).rows if row.about == "likelihood")
    # Entropy of eight Gaussians that hardly overlap, estimated with a standard error of 0.03.
    assert row.floor == pytest.approx(math.log(8) + math.log(2 * math.pi * math.e * 0.01), abs=0.12)
    assert row.model > row.floor


def test_looks_at_a_part_are_counted_and_the_kept_report_is_what_was_found(tmp_path):
    run = pofx.train("vae", "digits", run=tmp_path / "run", steps=3, hidden=(8,), report=False, quiet=True)
    for look in (1, 2):
        report = evaluate(run.path)
        assert report.looks == look
        assert f"look {look}" in str(report)
    keep(Run.open(run.path), report)
    again = kept(Run.open(run.path))
    assert again == report
    for mine, theirs in zip(again.rows, report.rows, strict=True):
        assert (mine.draws is None) == (theirs.draws is None)
        if mine.draws is not None:
            np.testing.assert_array_equal(mine.draws.values, theirs.draws.values)
    # Another part is another counter.
    assert evaluate(run.path, part="validation").looks == 1
    (run.path / "evaluation.json").write_text("{")
    with pytest.raises(UsageError, match="unreadable"):
        kept(Run.open(run.path))


def test_conditional_models_are_asked_for_the_labels_of_held_out_examples():
    model, dataset = build("vae", "digits", hidden=(16,), conditional=True)
    subject = Subject(model.eval(), dataset, dataset, dataset.test, "test")
    assert torch.equal(subject.asked, subject.real.label)
    assert subject.drawn.shape == subject.real.x.shape


def test_likelihoods_of_unequal_spaces_do_not_compare():
    row = Row(about="likelihood", name="negative log-likelihood", unit="nats per example", model=1.0, error=0.1, n=10, space="binary")
    assert row.comparable != dataclasses.replace(row, space="8-bit").comparable
    assert row.comparable == dataclasses.replace(row, model=2.0, note="another note").comparable


def test_bounds_of_different_numbers_of_samples_do_not_compare(monkeypatch):
    model, dataset = build("vae", "digits", hidden=(8,), latent_dim=2)
    quick = next(row for row in evaluate(model, dataset).rows if row.about == "likelihood")
    monkeypatch.setattr("pofx.metrics.likelihood.SAMPLES", 8)
    full = next(row for row in evaluate(model, dataset, full=True).rows if row.about == "likelihood")
    assert quick.n == full.n
    assert quick.comparable != full.comparable
    assert "K = 8" in full.space


def test_a_limited_likelihood_is_not_of_the_first_rows_of_a_sorted_source():
    x = np.repeat(np.arange(10.0), 1200).reshape(-1, 1) + np.random.default_rng(0).standard_normal((12_000, 1)) / 10
    dataset = data.from_arrays(x.astype(np.float32))
    cls = discovery.model("vae")
    subject = Subject(cls(dataset.spec, cls.Config(hidden=(8,))), dataset, dataset, dataset.test, "test")
    seen = torch.cat([batch.x for batch in subject.batches(300)])
    assert float(seen.mean()) == pytest.approx(0, abs=0.25)  # standardised: the first 300 are 1.4 below
    assert torch.equal(seen, subject.held.batch(subject.held.positions(shuffle=0)[:300]).x)


def test_the_runs_own_data_by_name_are_divided_as_for_training_and_overlaps_are_told(tmp_path):
    from pofx.data import Options

    run = pofx.train("vae", "digits", run=tmp_path / "run", steps=2, hidden=(8,), report=False, data_options=Options(seed=1))
    assert torch.equal(run.dataset("digits").test._rows, run.dataset().test._rows)
    other = data.load("digits", codec=run.codec)
    report = evaluate(run.path, other)
    assert any("were trained on" in sentence for sentence in report.warnings)
    assert not any("were trained on" in sentence for sentence in evaluate(run.path).warnings)


def test_data_of_another_scaling_or_shape_are_refused(tmp_path):
    x = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    dataset = data.from_arrays(x)
    run = pofx.train("vae", dataset, run=tmp_path / "run", steps=2, hidden=(8,), report=False)
    assert evaluate(run.path, dataset).rows  # arrays in memory have no name to be found by
    with pytest.raises(UsageError, match="another scaling"):
        evaluate(run.path, data.from_arrays(10 * x + 50))
    with pytest.raises(UsageError, match="another kind or shape"):
        evaluate(run.path, data.from_arrays(x[:, :1]))


def test_samples_that_are_not_finite_are_told():
    model, dataset = build("gan", "digits")
    model.generator.requires_grad_(False)
    next(iter(model.generator.parameters())).fill_(math.nan)
    with pytest.raises(UsageError, match="not finite"):
        evaluate(model, dataset)


@pytest.mark.parametrize("rows", [10, 14, 25, 45])
def test_tiny_data_are_measured_as_far_as_they_go(rows):
    x = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    dataset = data.from_arrays(x)
    cls = discovery.model("vae")
    report = evaluate(cls(dataset.spec, cls.Config(latent_dim=2, hidden=(8,), activation="silu")), dataset)
    assert report.warnings
    assert not {"memorisation", "repetition"} & {flag.check for flag in report.flags}


def test_binary_images_have_the_entropy_of_their_bits_as_a_floor():
    from pofx.data import Options

    x = np.full((300, 4, 4), 128, dtype=np.uint8)
    dataset = data.from_arrays(x, options=Options(bits=1))
    cls = discovery.model("vae")
    row = next(
        r
        for r in evaluate(cls(dataset.spec, cls.Config(latent_dim=2, hidden=(8,), activation="silu")), dataset).rows
        if r.about == "likelihood"
    )
    assert row.floor == pytest.approx(16 * math.log(2), rel=1e-3)
    assert dataset.test.draw_hash() in row.note


def test_binary_images_are_compared_with_draws_of_0_and_1():
    from pofx.data import Options

    x = np.full((300, 4, 4), 128, dtype=np.uint8)
    dataset = data.from_arrays(x, options=Options(bits=1))
    cls = discovery.model("vae")
    model = cls(dataset.spec, cls.Config(latent_dim=2, hidden=(8,)))
    assert set(Subject(model, dataset, dataset, dataset.test, "test").drawn.unique().tolist()) == {0.0, 1.0}


def test_a_bound_with_full_takes_5000_importance_samples(monkeypatch):
    model, dataset = build("vae", "digits", hidden=(8,), latent_dim=2)
    asked = []
    original = type(model).log_prob

    def log_prob(self, x, *, label=None, samples=64):
        asked.append(samples)
        return original(self, x, label=label, samples=4)

    monkeypatch.setattr(type(model), "log_prob", log_prob)
    evaluate(model, dataset, full=True)
    assert set(asked[1:]) == {5000}


def test_draws_in_parts_are_the_draws_at_once(monkeypatch):
    model, _ = build("vae", "digits", hidden=(16,))
    whole = examples.draw(model, 10, seed=3)
    monkeypatch.setattr(examples, "PART", 3)
    torch.testing.assert_close(examples.draw(model, 10, seed=3), whole, atol=1e-5, rtol=0)
    assert not torch.equal(examples.draw(model, 10, seed=4), whole)


def test_a_look_that_is_counted_while_training_goes_on_is_kept_and_undoes_nothing(tmp_path):
    run = pofx.train("vae", "digits", run=tmp_path / "run", steps=3, hidden=(8,), report=False, quiet=True)
    watching, training = Run.open(run.path), Run.read(run.path)
    training.update(status="training", last=7)
    assert evaluate(watching).looks == 1
    assert Run.read(run.path).info["status"] == "training"
    training.update(last=9)
    info = Run.read(run.path).info
    assert info["last"] == 9
    assert list(info["looks"].values()) == [1]
    # Two that began at the same time are two.
    assert evaluate(watching).looks == 2
    assert evaluate(training.open(run.path)).looks == 3
