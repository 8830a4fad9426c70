"""Metrics of tables against other libraries and closed forms; samplers that are wrong in one known way are told apart."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pofx import data
from pofx.data import Options
from pofx.findings import Flag
from pofx.metrics import columns
from pofx.metrics.columns import Layout, association, column_distances, missing_levels, pair_distances, prediction
from pofx.subject import Subject

# Two numbers and two categories, whose last level is that of empty cells.
MIXED = Layout(("a", "b", "c", "d"), ("number", "number", "category", "category"), ((), (), ("x", "y", "z", "empty"), ("p", "q", "empty")),
               (0, 1, 2, 3))  # fmt: skip


def mixed(n, seed):
    random = np.random.default_rng(seed)
    group = random.choice(3, n, p=[0.5, 0.3, 0.2])
    a = group + random.standard_normal(n)
    b = 1e6 + a + random.standard_normal(n)
    side = random.random(n) < 1 / (1 + np.exp(-a))
    b[random.random(n) < 0.1] = math.nan
    return np.stack([a, b, group, side], 1)


def test_association_is_what_pandas_and_scipy_find():
    from scipy.stats.contingency import association as cramer

    x = mixed(500, 0)
    found = association(x, MIXED)
    assert found == pytest.approx(found.T)
    assert np.diag(found) == pytest.approx(1)
    frame = pd.DataFrame(x)
    assert found[0, 1] == pytest.approx(frame.corr()[0][1])
    assert found[2, 3] == pytest.approx(cramer(pd.crosstab(frame[2], frame[3]).to_numpy(), method="cramer"))
    # The correlation ratio squared is the share of the variance that the means of groups explain.
    known = frame[[1, 2]].dropna()
    means = known.groupby(2)[1].transform("mean")
    assert found[1, 2] == pytest.approx(math.sqrt(means.var() / known[1].var()), rel=1e-6)


def test_association_of_a_column_that_never_changes_is_zero():
    x = mixed(100, 1)
    x[:, 0], x[:, 3] = 0.1, 1
    found = association(x, MIXED)
    assert np.isfinite(found).all()
    assert (found[0] == 0).all()
    assert (found[3] == 0).all()


def test_column_distances_by_hand():
    layout = Layout(("a", "c"), ("number", "category"), ((), ("x", "y", "empty")), (0, 1))
    real = np.array([[1.0, 0], [2.0, 0], [3.0, 1], [math.nan, 1]])
    fake = np.array([[2.5, 0], [3.5, 2]])
    # 2/3 of the real numbers lie at or below 2, none of the others; shares (1/2, 1/2, 0) against (1/2, 0, 1/2).
    assert column_distances(real, fake, layout) == pytest.approx([2 / 3, 1 / 2])
    fake[:, 0] = math.nan
    assert column_distances(real, fake, layout)[0] == 1
    assert column_distances(real, real, layout).tolist() == [0, 0]


def test_shuffled_columns_keep_columns_and_lose_pairs():
    real, random = mixed(2000, 2), np.random.default_rng(0)
    shuffled = np.stack([random.permutation(column) for column in real.T], 1)
    assert column_distances(real, shuffled, MIXED) == pytest.approx(0)
    lost = pair_distances(real, shuffled, MIXED)
    # What is left of an association by chance is about 1 / sqrt(2,000).
    assert lost == pytest.approx(np.where(np.eye(4), 0, np.abs(association(real, MIXED))), abs=0.1)
    assert lost[0, 1] > 0.6


def test_missing_levels_are_those_of_many_rows_that_chance_does_not_leave_out():
    real = np.repeat([0, 1, 2], [900, 60, 40])
    assert missing_levels(real, np.zeros(1000, dtype=int), 3).tolist() == [1]
    assert missing_levels(real, np.repeat([0, 1], [990, 10]), 3).tolist() == []
    assert missing_levels(real, np.zeros(50, dtype=int), 3).tolist() == []


def test_prediction_is_accuracy_and_r_squared():
    random = np.random.default_rng(3)
    x, test = random.uniform(-1, 1, (600, 2)), random.uniform(-1, 1, (300, 2))
    named = prediction(x, x[:, 0] > 0, test, test[:, 0] > 0, classes=True)
    assert set(named) <= {0.0, 1.0}
    assert named.mean() > 0.95
    noise = random.permutation(x[:, 0])
    assert prediction(x, 3 * x[:, 0], test, 3 * test[:, 0], classes=False).mean() > 0.95
    assert prediction(x, noise, test, test[:, 0], classes=False).mean() < 0.1
    # A constant guess explains nothing: R² is 0 at the mean of the test rows.
    constant = np.full(600, test[:, 0].mean())
    assert prediction(x, constant, test, test[:, 0], classes=False).mean() == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    random, n = np.random.default_rng(0), 4000
    kind = random.choice(4, n, p=[0.5, 0.3, 0.13, 0.07])
    size = 2.0 * kind + random.standard_normal(n)
    price = 10 * size + 3 * random.standard_normal(n)
    price[random.random(n) < np.where(kind == 0, 0.3, 0.05)] = math.nan
    colour = np.where(random.random(n) < 0.1, None, random.choice(["red", "green"], n))
    frame = pd.DataFrame({
        "size": size, "kind": np.array(list("abcd"))[kind], "count": random.poisson(np.exp(size / 3)), "price": price, "colour": colour,
        "bought": np.where(random.random(n) < 1 / (1 + np.exp(2 - size)), "yes", "no"),
    })  # fmt: skip
    path = tmp_path_factory.mktemp("tables") / "sales.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def dataset(path):
    return data.load(path, Options(validation=0.25))


def rows_of(dataset, n=1000):
    """Training rows, which are real ones too, in another order than the floor's."""
    return dataset.train.batch(dataset.train.positions(shuffle=5)[:n]).x


def measured(dataset, x, conditional=False):
    """Rows by the first words of their names, and flags, of a sampler that drew x."""
    model = SimpleNamespace(spec=dataset.spec, window=None, config=SimpleNamespace(conditional=conditional))
    held = dataset.validation
    assert held is not None
    subject = Subject(model, dataset, dataset, held, "validation")
    subject.drawn = x  # in place of the cached property
    found = list(columns.measure(subject))
    rows = [row for row in found if not isinstance(row, Flag)]
    assert {row.about for row in rows} == {"samples"}
    return rows, [flag for flag in found if isinstance(flag, Flag)]


def test_real_rows_pass_for_real(dataset):
    (single, pairs, learned), flags = measured(dataset, rows_of(dataset))
    assert flags == []
    for row in (single, pairs):
        # The floor is as uncertain as the number.
        assert abs(row.model - row.floor) < 4 * math.sqrt(2) * row.error
    assert single.baselines["gaussian"] > single.floor + 4 * single.error
    assert single.baselines["independent columns"] < single.baselines["gaussian"]
    assert pairs.baselines["independent columns"] > 10 * pairs.floor
    assert abs(learned.model - learned.floor) < 4 * math.sqrt(2) * learned.error
    assert learned.name == "prediction of bought learned from samples"
    assert learned.unit == "accuracy"
    assert learned.baselines["independent columns"] < learned.floor - 4 * learned.error


def test_independent_columns_are_told_by_pairs_and_by_prediction(dataset):
    x, order = rows_of(dataset), torch.Generator().manual_seed(0)
    for name in {column.name for column in dataset.spec.columns}:
        features = [i for column in dataset.spec.columns if column.name == name for i in range(column.start, column.stop)]
        x[:, features] = x[torch.randperm(len(x), generator=order)][:, features]
    (single, pairs, learned), flags = measured(dataset, x)
    assert flags == []
    assert abs(single.model - single.floor) < 4 * math.sqrt(2) * single.error
    assert pairs.model > pairs.floor + 10 * pairs.error
    assert learned.model < learned.floor - 4 * learned.error


def test_a_shifted_column_is_the_worst(dataset):
    x = rows_of(dataset)
    place = next(column.start for column in dataset.spec.columns if column.name == "size")
    x[:, place] += 3
    (single, pairs, _), _ = measured(dataset, x)
    assert "size" in single.note
    assert single.model > single.floor + 4 * single.error
    # Correlations do not see a shift.
    assert abs(pairs.model - pairs.floor) < 4 * math.sqrt(2) * pairs.error


def test_numbers_that_are_never_empty_are_seen(dataset):
    x = rows_of(dataset)
    place = next(column.start for column in dataset.spec.columns if column.kind == "missing")
    x[:, place] = 0
    (single, _, _), flags = measured(dataset, x)
    assert "price being empty" in single.note
    assert [flag.check for flag in flags] == ["missing modes"]
    assert "price being empty = 'yes'" in flags[0].sentence


def test_a_missing_category_is_flagged(dataset):
    x = rows_of(dataset, 3000)
    kind = next(column for column in dataset.spec.columns if column.name == "kind")
    x = x[x[:, kind.start + 3] < 0.5][:1000]
    _, flags = measured(dataset, x)
    assert [flag.check for flag in flags] == ["missing modes"]
    assert "kind = 'd'" in flags[0].sentence
    assert flags[0].sentence.count("=") == 1


def test_labels_that_the_model_is_asked_for_are_predicted(path):
    dataset = data.load(path, Options(validation=0.25, label="kind"))
    held = dataset.validation
    wanted = held.batch(held.positions(shuffle=0)).label
    train = dataset.train.batch(dataset.train.positions(shuffle=5))
    # A perfect conditional sampler: a training row of the wanted class; a deaf one: any row.
    random = np.random.default_rng(0)
    of = [np.flatnonzero(train.label.numpy() == name) for name in range(4)]
    heard = train.x[[int(random.choice(of[name])) for name in wanted.tolist()]]
    good, deaf = (measured(dataset, x, conditional=True)[0][-1] for x in (heard, train.x[: len(wanted)]))
    assert good.name == "prediction of the label learned from samples"
    assert abs(good.model - good.floor) < 4 * math.sqrt(2) * good.error
    assert deaf.model < good.model - 4 * good.error


def test_a_table_of_numbers_predicts_its_last_one(tmp_path):
    random = np.random.default_rng(4)
    size = random.standard_normal(1200)
    pd.DataFrame({"size": size, "price": 2 * size + 0.1 * random.standard_normal(1200)}).to_csv(tmp_path / "t.csv", index=False)
    dataset = data.load(tmp_path / "t.csv", Options(validation=0.25))
    (_, pairs, learned), _ = measured(dataset, rows_of(dataset, 300))
    assert learned.name == "prediction of price learned from samples"
    assert learned.unit == "R²"
    assert learned.floor > 0.9
    assert abs(learned.model - learned.floor) < 0.1
    assert learned.baselines["independent columns"] < 0.2
    assert pairs.baselines["gaussian"] < 0.05


def test_plain_vectors_are_no_table():
    dataset = data.load("ring")
    model = SimpleNamespace(spec=dataset.spec, window=None, config=SimpleNamespace())
    assert list(columns.measure(Subject(model, dataset, dataset, dataset.test, "test"))) == []
