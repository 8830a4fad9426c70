"""Disentanglement and worth of codes: known answers for perfect, random, rotated and constant codes, and oracles."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from pofx import core, data
from pofx.core import Decodes, Encodes, Model
from pofx.data import Options
from pofx.data.dataset import Factors
from pofx.findings import Flag
from pofx.metrics import codes as worth
from pofx.metrics import disentanglement
from pofx.metrics.codes import active_units, linear_probe, neighbour_purity
from pofx.metrics.disentanglement import DCI, dci, factor_vae_score, mig, sap
from pofx.subject import Subject

RANDOM = np.random.default_rng(0)


def grid(*sizes, times=1):
    """Every combination of values `times` times, shuffled: factors that are exactly independent."""
    values = np.array(list(itertools.product(*map(range, sizes))) * times)
    return np.random.default_rng(1).permutation(values)


FACTORS = grid(3, 4, 5, times=20)
PERFECT = FACTORS * [1.0, -2.0, 0.5] + [0, 1, 2]
NOISE = RANDOM.standard_normal((len(FACTORS), 6))
SQUARE = grid(5, 5, times=40)
ROTATED = (SQUARE - 2.0) @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)

# ---------------------------------------------------------------------------------------------------- disentanglement


def test_perfect_codes():
    assert mig(PERFECT, FACTORS) == pytest.approx(1)
    assert dci(PERFECT, FACTORS) == pytest.approx(DCI(1, 1, 1), abs=1e-6)
    assert factor_vae_score(PERFECT, FACTORS) == 1
    # Which unit is which, and units that say nothing, do not matter.
    assert mig(np.column_stack([np.zeros(len(FACTORS)), PERFECT[:, ::-1]]), FACTORS) == pytest.approx(1)


def test_random_codes():
    assert mig(NOISE, FACTORS) < 0.02
    found = dci(NOISE, FACTORS, train=400, test=800)
    assert max(found[:2]) < 0.1
    # Chance is 1/3, 1/4, 1/5.
    assert found.informativeness == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3, abs=0.06)
    assert factor_vae_score(NOISE, FACTORS) == pytest.approx(1 / 3, abs=0.1)
    assert sap(NOISE, FACTORS) < 0.05


def test_rotated_codes_know_all_and_separate_nothing():
    assert mig(SQUARE.astype(float), SQUARE) == pytest.approx(1)
    assert mig(ROTATED, SQUARE) < 0.05
    found = dci(ROTATED, SQUARE)
    assert found.informativeness > 0.98
    assert max(found[:2]) < 0.1
    assert dci(SQUARE.astype(float), SQUARE).disentanglement > 0.99
    assert sap(ROTATED, SQUARE) < 0.1 < sap(SQUARE.astype(float), SQUARE)


def test_a_copied_unit_spoils_the_gaps_alone():
    twice = np.column_stack([PERFECT, PERFECT])
    assert mig(twice, FACTORS) == pytest.approx(0)
    assert sap(twice, FACTORS) == pytest.approx(0)
    assert factor_vae_score(twice, FACTORS) == 1


def test_sap_of_yes_or_no_is_the_gap_between_certainty_and_chance():
    coins = grid(2, 2, 2, times=150)
    assert sap(4 * coins.astype(float), coins) == pytest.approx(0.5, abs=0.06)


def test_sap_depends_on_scale():
    coins = grid(2, 2, times=50)
    # A penalised machine cannot stretch a thousandth to a margin.
    assert sap(coins * 1e-3 + 1.0, coins) < sap(4.0 * coins, coins)


def test_mig_against_an_oracle():
    x = FACTORS @ RANDOM.standard_normal((3, 4)) + 0.3 * RANDOM.standard_normal((len(FACTORS), 4))
    gaps = []
    for value in FACTORS.T:
        # Bins of equal width, the last of which holds the greatest code.
        bins = [np.minimum(20 * (unit - unit.min()) // (unit.max() - unit.min()), 19) for unit in x.T]
        second, first = sorted(mutual_info_score(unit, value) for unit in bins)[-2:]
        gaps.append((first - second) / mutual_info_score(value, value))
    assert mig(x, FACTORS) == pytest.approx(np.mean(gaps), abs=1e-9)


def test_concentration_by_hand():
    # The first row is spread evenly over two of two columns, the second lies in one; they weigh 2 and 6.
    assert disentanglement._concentration(np.array([[1.0, 1.0], [6.0, 0.0]])) == pytest.approx(6 / 8, abs=1e-6)
    assert disentanglement._concentration(np.zeros((3, 2))) == pytest.approx(0, abs=1e-6)


def test_error_from_disjoint_parts_is_that_of_their_mean():
    parts = RANDOM.standard_normal((8, 500))
    # Each of 500 times: the mean of 8 standard normal numbers has a standard error of 1 / sqrt(8), widened by Student for
    # the 8 that it is known from.
    errors = [disentanglement._of_parts(list(parts[:, i])).error() for i in range(500)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(2.365 / 1.96 / np.sqrt(8), rel=0.1)
    assert disentanglement._of_parts([1.0, 2.0, 6.0]).values.mean() == pytest.approx(3)


def test_completeness_and_disentanglement_are_different_questions():
    # Two units for each of two factors: each unit is pure, no factor is in one unit.
    y = grid(4, 4, times=60)
    split = np.column_stack([y[:, 0] // 2, y[:, 0] % 2, y[:, 1] // 2, y[:, 1] % 2]).astype(float)
    found = dci(split, y, train=500, test=300)
    assert found.disentanglement > 0.95
    assert found.completeness == pytest.approx(0.5, abs=0.1)


def test_factor_vae_leaves_out_units_that_hardly_move():
    assert factor_vae_score(0.01 * PERFECT, FACTORS) == 0
    assert factor_vae_score(np.column_stack([1e-3 * FACTORS[:, 0], PERFECT]), FACTORS) == 1


def test_factor_vae_is_a_function_of_the_seed():
    mixed = PERFECT + 4 * NOISE[:, :3]
    found = [factor_vae_score(mixed, FACTORS, train=300, test=100, batch=8, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("measure", [mig, dci, sap, factor_vae_score])
@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (PERFECT[:, :1], FACTORS, "two dimensions"),
        (PERFECT, FACTORS[:, :1], "two factors"),
        (PERFECT[:5], FACTORS, "are needed"),
        (PERFECT, FACTORS.astype(float), "integer factors"),
        (np.where(PERFECT > 3, np.nan, PERFECT), FACTORS, "finite"),
        (PERFECT, FACTORS * [1, 0, 1], "factor 1 never changes"),
    ],
)
def test_tables_that_cannot_be_measured(measure, x, y, match):
    with pytest.raises(ValueError, match=match):
        measure(x, y)


# --------------------------------------------------------------------------------------------------------------- codes


def test_active_units_by_hand():
    codes = RANDOM.standard_normal((4000, 4)) * [1, 0.15, 0.05, 0] + [0, 0, 0, 7]
    # Variances 1, 0.0225, 0.0025 and 0 beside 1; then beside their own.
    assert active_units(codes, np.ones(4)).tolist() == [True, True, False, False]
    assert active_units(codes, np.array([1, 0.0225, 0.0025, 1e-12])).tolist() == [True, True, True, False]
    assert active_units(codes).tolist() == [True, True, True, False]
    # Single precision does not repeat a constant to the last digit.
    assert not active_units(np.float32(7) * (1 + 1e-7 * RANDOM.standard_normal((100, 1)))).any()


def test_neighbour_purity_by_hand():
    line = np.array([[0.0], [1.0], [2.5], [10.0], [11.0]])
    # The two nearest of each: 1 2, 0 2, 1 0, 4 2, 3 2.
    assert neighbour_purity(line, np.array([0, 0, 1, 1, 1]), 2).tolist() == [0.5, 0.5, 0, 1, 1]
    # Codes at one place are still not their own neighbours.
    assert neighbour_purity(np.zeros((2, 1)), np.array([0, 1]), 1).tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least 6"):
        neighbour_purity(line, np.zeros(5, int), 5)


def test_probe_of_the_label_itself_is_always_right():
    label = np.arange(300) % 5
    codes = np.eye(5)[label]
    for count in (50, 200):
        found = linear_probe(codes[:200], label[:200], codes[200:], label[200:], count)
        assert found.accuracy == 1
        assert 0 < found.error < 0.03
        assert len(found.draws.values) == 100
    # The scale of codes does not matter.
    assert linear_probe(1e-4 * codes[:200], label[:200], 1e-4 * codes[200:], label[200:], 200).accuracy == 1


def test_probe_of_noise_is_chance_and_of_one_class_constant():
    label = RANDOM.integers(0, 4, 3000)
    noise = RANDOM.standard_normal((3000, 5))
    found = linear_probe(noise[:2000], label[:2000], noise[2000:], label[2000:], 100)
    assert found.accuracy == pytest.approx(0.25, abs=4 * found.error)
    single = linear_probe(noise[:10], np.full(10, 2), noise[2000:], label[2000:], 10)
    assert single.accuracy == (label[2000:] == 2).mean()
    with pytest.raises(ValueError, match="20 labels"):
        linear_probe(noise[:10], label[:10], noise, label, 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(core.Config):
    """What the models of these tests are asked."""

    conditional: bool = False
    """Whether the model knows labels."""


class Linear(Model, Encodes):
    """A code that is a fixed linear map of the values."""

    Config = Config
    kinds = frozenset({"images", "vectors"})

    def __init__(self, spec, weight, conditional=False):
        super().__init__(spec, Config(conditional=conditional))
        self.weight = weight

    def encode(self, x, *, label=None):
        assert label is None, "a probe would read the label off the code"
        return x.flatten(1) @ self.weight


class Posterior(Linear, Decodes):
    """The same with a prior, of standard deviation `scale`."""

    scale = 1.0

    def decode(self, z, *, label=None):
        return z

    def prior(self):
        zeros = torch.zeros(self.weight.shape[1])
        return torch.distributions.Independent(torch.distributions.Normal(zeros, zeros + self.scale), 1)


def vectors(n=600, label=True):
    random = np.random.default_rng(5)
    of = np.arange(n) % 3
    x = random.standard_normal((n, 4)) + 2 * np.eye(4)[of]
    return data.from_arrays(x.astype(np.float32), of if label else None)


def findings(model, dataset, module=worth, **settings):
    return list(module.measure(Subject(model.eval(), dataset, dataset, dataset.test, "test", **settings)))


def flagged(found):
    return [row.check for row in found if isinstance(row, Flag)]


@pytest.mark.parametrize(
    ("cls", "scales", "prior", "collapsed"),
    [
        (Linear, [0, 0], None, True),
        (Linear, [0, 1e-3], None, False),
        (Posterior, [0, 0], 1.0, True),
        (Posterior, [0.05] * 40, 1.0, True),
        # One of 40 units is under 5 %; one of 20 is not.
        (Posterior, [1] + [0.01] * 39, 1.0, True),
        (Posterior, [1] + [0.01] * 19, 1.0, False),
        (Posterior, [0.9] * 3 + [0.01] * 5, 1.0, False),
        # Codes of a small scale of their own, and the prior that was fitted to them.
        (Posterior, [1e-3] * 4, 1e-3, False),
    ],
)
def test_collapsed_codes_are_flagged(cls, scales, prior, collapsed):
    dataset = vectors(label=False)
    weight = torch.zeros(4, len(scales))
    weight[0] = torch.tensor(scales, dtype=torch.float32)
    model = cls(dataset.spec, weight)
    model.scale = prior
    found = findings(model, dataset)
    assert flagged(found) == (["collapsed codes"] if collapsed else [])
    least = 0.0 if prior is None else 0.1 * prior
    assert found[0].model == sum(scale > least for scale in scales)
    # Without labels there is nothing to probe.
    assert [row.name for row in found if not isinstance(row, Flag)] == ["active units"]


@pytest.mark.parametrize("conditional", [False, True])
def test_identity_codes_are_worth_as_much_as_the_values(conditional):
    dataset = vectors()
    found = findings(Linear(dataset.spec, torch.eye(4), conditional), dataset)
    assert [row.name for row in found] == [
        "active units",
        "linear probe, 100 labels",
        "linear probe, 480 labels",
        "neighbours of the same class",
    ]
    for row in found[1:]:
        assert row.baselines["raw values"] == pytest.approx(row.model, abs=1e-6)
        assert row.n == 60
        assert 0 < row.error < 0.15
        assert ("without labels" in row.note) == conditional


def test_codes_that_drop_the_class_are_worth_less():
    dataset = vectors()
    # The fourth value alone is the same for all classes.
    blind = findings(Linear(dataset.spec, torch.eye(4)[:, 3:]), dataset)
    for row in blind[1:]:
        assert row.model < 0.5 < row.baselines["raw values"]


def test_hidden_labels_stay_hidden():
    shown = vectors()
    x, label = shown.codec.show(data.everything(shown).x), data.everything(shown).label.numpy()
    dataset = data.from_arrays(x, label, Options(labelled=30))
    names = [row.name for row in findings(Linear(dataset.spec, torch.eye(4)), dataset)]
    assert names[1:-1] == ["linear probe, 30 labels"]


# ------------------------------------------------------------------------------------------- disentanglement of a model

COINS = 8


def coins(seen=64):
    """Images of 8 pixels, each its own factor, of which training saw some."""
    values = grid(*[2] * COINS)

    def render(of):
        return torch.from_numpy(0.25 + 0.5 * of).to(torch.float32).view(-1, 1, 2, 4)

    x = render(values).numpy()
    dataset = data.from_arrays(x, None, Options(validation=0.0))
    names = tuple(f"coin {i}" for i in range(COINS))
    factors = Factors(names, (2,) * COINS, train=values[:seen], validation=None, test=values[seen:], render=render)
    return dataclasses.replace(dataset, factors=factors)


def test_report_of_a_model_that_separates_all(monkeypatch):
    # Fewer votes.
    monkeypatch.setattr(disentanglement, "TRAIN", 1000)
    monkeypatch.setattr(disentanglement, "TEST", 500)
    dataset = coins()
    rows = {row.name: row for row in findings(Linear(dataset.spec, torch.eye(COINS)), dataset, disentanglement, full=True)}
    assert len(rows) == 6
    assert rows["FactorVAE score"].model == 1
    assert rows["DCI disentanglement"].model == pytest.approx(1, abs=1e-6)
    assert rows["DCI informativeness"].model == 1
    for row in rows.values():
        # 256 combinations, of which training saw 64.
        assert row.n in (128, 192)
        assert row.model > row.baselines["principal components"]
        assert row.error is not None
        assert row.error < 0.1
    assert rows["mutual information gap (MIG)"].model > 0.9 > 0.1 > rows["mutual information gap (MIG)"].baselines["random codes"]


def test_images_of_training_are_not_measured_on():
    dataset = coins()
    subject = Subject(Linear(dataset.spec, torch.eye(COINS)), dataset, dataset, dataset.test, "test")
    measured = {tuple(row) for row in disentanglement._unseen(subject, dataset.factors, 10_000)}
    assert len(measured) == 192
    assert not measured & {tuple(row) for row in dataset.factors.train}


def test_without_factors_or_with_one_unit_there_is_nothing_to_say():
    dataset = coins()
    assert findings(Linear(dataset.spec, torch.ones(COINS, 1)), dataset, disentanglement) == []
    bare = dataclasses.replace(dataset, factors=None)
    assert findings(Linear(bare.spec, torch.eye(COINS)), bare, disentanglement) == []
