"""Stacked images: channels come from the part of the same name, modes belong to their channels, counts of modes are right."""

import math

import numpy as np
import pytest
import torch
from test_data_support import parts

from pofx import data, metrics
from pofx.core import UsageError
from pofx.data import Options, stacked
from pofx.evaluate import evaluate
from pofx.metrics.stacked import Judge


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(stacked, "PARTS", (1500, 100, 1200))


def everything(split):
    return split.batch(split.positions())


def test_channels_are_images_of_the_part_of_the_same_name():
    single = data.load("digits")
    for mine, theirs, size in zip(parts(data.load("stacked_digits")), parts(single), stacked.PARTS, strict=True):
        known = {image.numpy().tobytes() for image in everything(theirs).x}
        x = everything(mine).x
        assert x.shape == (size, 3, 8, 8)
        assert {channel.numpy().tobytes() for channel in x.flatten(0, 1)} <= known
        # Each channel is drawn by itself.
        assert (x[:, 0] != x[:, 1]).flatten(1).any(1).float().mean() > 0.9


def test_the_mode_is_the_classes_of_the_channels_in_their_order():
    dataset = data.load("stacked_digits", Options(label="mode"))
    assert len(dataset.spec.label.names) == 1000
    assert dataset.spec.label.names[205] == "2, 0, 5"
    single = data.load("digits")
    known = {image.numpy().tobytes(): int(label) for image, label in zip(*everything(single.train)[:2], strict=True)}
    x, label = everything(dataset.train)[:2]
    for image, mode in zip(x[:200], label[:200], strict=True):
        assert [known[channel.numpy().tobytes()] for channel in image[:, None]] == [int(mode) // 100, int(mode) // 10 % 10, int(mode) % 10]


def test_equal_seeds_give_equal_triples_and_there_is_no_label_unless_asked_for():
    one, again, other = (data.load("stacked_digits", Options(seed=seed)) for seed in (0, 0, 1))
    assert one.spec.label is None
    assert torch.equal(everything(one.test).x, everything(again.test).x)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert not torch.equal(everything(one.test).x, everything(other.test).x)
    with pytest.raises(UsageError, match=r"--data\.label mode"):
        data.load("stacked_digits", Options(label="colour"))
    with pytest.raises(UsageError, match="binarises grey"):
        data.load("stacked_digits", Options(bits=1))


def test_modes_are_drawn_evenly():
    random = np.random.default_rng(0)
    mode = stacked.mode_of(random.integers(10, size=(26_000, 3)), 10)
    seen = metrics.stacked_modes(mode, 1000)
    # Of a Poisson variable of mean 26, 0.34 % are below 13, and the divergence is about (modes - 1) / 2n.
    assert seen.found == 1000
    assert 985 <= seen.filled <= 1000
    assert seen.kl == pytest.approx(999 / 52_000, rel=0.1)


@pytest.mark.parametrize("shown", [1, 10, 250, 1000])
def test_some_modes_evenly(shown):
    mode = np.repeat(np.arange(shown) * (1000 // shown), 26_000 // shown)
    assert metrics.stacked_modes(mode, 1000) == (shown, shown, pytest.approx(math.log(1000 / shown)))


def test_a_mode_is_filled_with_half_its_share():
    counts = np.full(1000, 26)
    counts[:3], counts[3] = 13, 26 + 3 * 13
    mode = np.repeat(np.arange(1000), counts)
    assert len(mode) == 26_000
    assert metrics.stacked_modes(mode, 1000).filled == 1000
    mode[np.flatnonzero(mode == 0)[0]] = 3
    assert metrics.stacked_modes(mode, 1000)[:2] == (1000, 999)


def test_the_classifier_names_the_channels_of_real_triples_and_misses_those_of_a_collapsed_model():
    dataset = data.load("stacked_digits", Options(label="mode"))
    judge = Judge("stacked_digits", {})
    x, label = everything(dataset.test)[:2]
    assert judge.modes == 1000
    assert (judge(x) == label.numpy()).mean() > 0.8
    assert len(set(judge(x[:5].repeat(10, 1, 1, 1)))) <= 5


def test_an_evaluation_counts_modes_beside_those_of_real_data():
    import dataclasses

    from pofx import core, discovery

    class Few(core.Model, core.Samples):
        """The first 20 test images again and again."""

        Config = dataclasses.make_dataclass("Config", [], bases=(core.Config,), frozen=True, kw_only=True)
        kinds = frozenset({"images"})

        def sample(self, n, *, noise, label=None):
            return self.x[(noise.first + torch.arange(n)) % len(self.x)]

    dataset = data.load("stacked_digits")
    model = Few(dataset.spec, Few.Config())
    model.x = everything(dataset.test).x[:20]
    assert "stacked" in discovery.names("metrics")
    report = evaluate(model, dataset)
    rows = {row.name: row for row in report.rows}
    found = rows["modes found"]
    assert found.model <= 20
    assert found.floor > 400
    assert rows["divergence of modes from even shares"].model > 3
    assert any("modes, and as many real examples" in flag.sentence for flag in report.flags)


def test_base_names_are_sources():
    assert {stacked.base(name) for name in stacked.NAMES} == set(stacked.BASES) <= set(data.names())
