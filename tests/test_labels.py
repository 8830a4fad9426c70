"""What samples say about labels: against shuffled labels, against samples whose faults are known, against real data."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from pofx import data, examples, features
from pofx.core import Config, Model, Samples, UsageError
from pofx.data.dataset import Split
from pofx.metrics import labels
from pofx.subject import Subject


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(autouse=True, scope="module")
def quick():
    """A judge of a few hundred moves; it still knows nine digits of ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "MOVES", 300)
        patch.setattr(features, "_trained", {})
        yield


class Replay(Model, Samples):
    """Draws real examples whose classes are what `pick` makes of the classes asked for."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Config):
        conditional: bool = True

    kinds = frozenset({"images"})

    def __init__(self, dataset, pick, *, conditional=True):
        super().__init__(dataset.spec, self.Config(conditional=conditional))
        self.pick = pick

        part = dataset.train.batch(torch.arange(len(dataset.train)))
        # Each example once before any a second time.
        self.stock = [itertools.cycle(part.x[part.label == i]) for i in range(10)]

    def sample(self, n, *, noise, label=None):
        wanted = self.pick(label if label is not None else noise.categorical(torch.ones(1, 10)))
        return torch.stack([next(self.stock[wish]) for wish in wanted])


def findings(model, dataset):
    """Rows and flags by name."""
    subject = Subject(model, dataset, dataset, dataset.test, "test")
    with examples.asking(model):
        found = list(labels.measure(subject))
    return {getattr(one, "name", None) or one.check: one for one in found}


@pytest.fixture(scope="module")
def more(digits):
    """Digits of which a half is held out."""
    x, label = (
        torch.cat([part.batch(torch.arange(len(part)))[i] for part in (digits.train, digits.validation, digits.test)]) for i in (0, 1)
    )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = (Split(x, label, rows=rows) for rows in order.split(len(x) // 2 + 1))
    return dataclasses.replace(digits, train=train, test=test, validation=None, fingerprint="halves")


# ------------------------------------------------------------------------------------------------------------ arithmetic


def test_chance_is_the_mean_agreement_over_shuffles():
    random = np.random.default_rng(0)
    asked, named = random.integers(0, 4, 200), random.choice(4, 200, p=[0.7, 0.1, 0.1, 0.1])
    shuffled = [float((random.permutation(asked) == named).mean()) for _ in range(4000)]
    assert labels.chance(asked, named, 4) == pytest.approx(np.mean(shuffled), abs=4 * np.std(shuffled) / 4000**0.5)


def test_shares_leave_missing_labels_out():
    assert labels.shares(np.array([0, 2, 2, -1, -1, 2]), 4) == pytest.approx([0.25, 0, 0.75, 0])
    assert labels.shares(np.array([-1]), 2).tolist() == [0, 0]


def test_total_variation_is_the_largest_difference_of_probabilities():
    random = np.random.default_rng(1)
    p, q = random.dirichlet(np.ones(5), 2)
    events = (np.arange(32)[:, None] >> np.arange(5)) & 1
    assert labels.total_variation(p, q) == pytest.approx(np.abs(events @ (p - q)).max())
    assert labels.total_variation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_missing_classes_are_those_hardly_drawn():
    real = np.array([200, 200, 95, 5])
    assert labels.missing_classes(real, np.array([400, 9, 91, 0])) == [1]
    assert labels.missing_classes(real, np.array([400, 55, 45, 0])) == []
    # That 5 become none happens by chance, that 50 do does not; twice as many samples are no more of a class.
    assert labels.missing_classes(10 * real, 10 * np.array([400, 55, 45, 0])) == [3]
    assert labels.missing_classes(real, 2 * np.array([400, 9, 91, 0])) == [1]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classes_that_are_drawn_as_often_as_real_ones_are_not_missing(classes):
    random = np.random.default_rng(2)
    p = random.dirichlet(np.ones(classes))
    alarms = sum(bool(labels.missing_classes(*random.multinomial(500, p, 2))) for _ in range(200))
    assert alarms <= 8  # 2 are expected at most


def test_coverage_of_each_class():
    random = np.random.default_rng(3)
    label = np.arange(1200) % 3
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    real, fake = (random.standard_normal((1200, 2)) + centres[label] for _ in range(2))
    equal = labels.class_coverage(real, label, fake, label)
    assert equal == pytest.approx(dict.fromkeys(range(3), 1 - 2 ** (-labels.K)), abs=0.05)
    # Class 1 is always the same sample; class 2 is answered with class 0.
    fake[label == 1] = centres[1]
    fake[label == 2] = fake[label == 0]
    found = labels.class_coverage(real, label, fake, label)
    assert found[0] == equal[0]
    assert found[1] < 0.1
    assert found[2] == 0


def test_coverage_leaves_out_classes_that_are_too_few():
    random = np.random.default_rng(4)
    x, label = random.standard_normal((30, 2)), np.array([0] * 20 + [1] * 5 + [-1] * 5)
    assert set(labels.class_coverage(x, label, x, label)) == {0}


# ------------------------------------------------------------------------------------------------------- conditional models


def test_samples_of_the_classes_asked_for_agree_as_real_data_do(more):
    found = findings(Replay(more, lambda asked: asked), more)
    agreement = found["agreement with the label asked for"]
    assert agreement.floor > 0.85
    # Training examples were seen by the judge, so they may agree more.
    assert agreement.model >= agreement.floor - 3 * agreement.error
    assert agreement.baselines["labels shuffled"] == pytest.approx(0.1, abs=0.02)
    for name in ("coverage of the mean class", "coverage of the worst class"):
        assert found[name].model == pytest.approx(found[name].floor, abs=0.12)
        assert found[name].error > 0
    assert found["coverage of the worst class"].model <= found["coverage of the mean class"].model
    assert "ignored labels" not in found


@pytest.mark.parametrize("pick", [lambda asked: asked.flip(0), lambda asked: torch.full_like(asked, 3)], ids=["other", "one"])
def test_labels_that_are_ignored_are_flagged(more, pick):
    found = findings(Replay(more, pick), more)
    agreement = found["agreement with the label asked for"]
    assert agreement.model == pytest.approx(agreement.baselines["labels shuffled"], abs=0.06)
    assert f"{agreement.model:.0%} of the samples" in found["ignored labels"].sentence


def test_one_class_answered_with_another_is_the_worst_class(more):
    good, found = (findings(Replay(more, pick), more) for pick in (lambda asked: asked, lambda asked: torch.where(asked == 4, 7, asked)))
    worst = found["coverage of the worst class"]
    assert "it is 4" in worst.note
    assert worst.model < 0.1
    assert "ignored labels" not in found
    name = "coverage of the mean class"
    assert found[name].model == pytest.approx(good[name].model - good["coverage of the worst class"].floor / 10, abs=0.05)


# ----------------------------------------------------------------------------------------------------- unconditional models


def test_classes_that_are_never_drawn_are_named(more):
    found = findings(Replay(more, lambda drawn: torch.where(drawn == 2, 8, drawn), conditional=False), more)
    variation = found["total variation of class shares"]
    assert variation.model > 0.08 > variation.floor
    assert found["missing classes"].model == 1
    assert found["missing classes"].floor == 0
    assert "of 2 (" in found["missing modes"].sentence
    assert "8 (" not in found["missing modes"].sentence


def test_all_classes_drawn_alike_raise_no_flag(more):
    found = findings(Replay(more, lambda drawn: drawn, conditional=False), more)
    variation = found["total variation of class shares"]
    assert variation.model < variation.floor + 3 * variation.error
    assert found["missing classes"].model == 0
    assert "missing modes" not in found


def test_data_without_classes_have_no_rows(digits):
    bare = dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, label=None))
    assert findings(Replay(bare, lambda drawn: drawn, conditional=False), bare) == {}


# ------------------------------------------------------------------------------------------------------------- the judge


def test_the_judge_is_a_function_of_the_training_part_alone(digits, monkeypatch):
    monkeypatch.setattr(features, "MOVES", 40)
    monkeypatch.setattr(features, "_trained", {})
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with torch.no_grad():
        model, accuracy = features.classifier(digits)
    assert torch.equal(torch.rand(2), expected), "the caller's random numbers were touched"
    assert features.classifier(digits)[0] is model
    # Other held-out labels, another accuracy, the same network.
    wrong = Split(digits.test.x, (digits.test.label + 1) % 10, rows=torch.arange(50))
    again, worse = features.classifier(dataclasses.replace(digits, test=wrong, validation=None, fingerprint="other"))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert accuracy > 0.2 > worse


def test_features_of_labels_have_unit_variance_and_know_classes(more):
    found = features.choose("labels", more)
    part = more.train.batch(torch.arange(len(more.train)))
    codes = found(part.x)
    assert codes.var(0).mean() == pytest.approx(1)
    assert "on held-out data" in found.name

    def ratio(z):
        """How much of the variance lies between classes."""
        means = np.stack([z[part.label.numpy() == i].mean(0) for i in range(10)])
        return means.var(0).sum() / z.var(0).sum()

    assert ratio(codes) > 1.5 * ratio(part.x.flatten(1).numpy())


def test_a_judge_needs_classes(digits):
    bare = dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, label=None))
    with pytest.raises(UsageError, match=r"--data\.label"):
        features.classifier(bare)
