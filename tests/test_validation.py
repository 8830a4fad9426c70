"""Validations read no more than a training can afford, the same examples each time, wherever they stand in the file."""

import numpy as np
import pytest
import torch

import pofx
from pofx import api, data, discovery
from pofx.core import Budget
from pofx.data.dataset import Split


@pytest.fixture
def seen(monkeypatch):
    """The rows that each call of a validation was given."""
    cls, found = discovery.model("vae"), []
    validate = cls.validate

    def noted(self, batch):
        found.append(batch.x)
        return validate(self, batch)

    monkeypatch.setattr(cls, "validate", noted)
    return found


@pytest.fixture
def dataset():
    x = np.arange(6000, dtype=np.float32)[:, None] + np.random.default_rng(0).standard_normal((6000, 2)).astype(np.float32)
    return data.from_arrays(x, options=data.Options(validation=0.5))


def passes(seen):
    """What was read in each validation: these begin with the same row."""
    starts = [i for i, x in enumerate(seen) if torch.equal(x[0], seen[0][0])]
    return [torch.cat(seen[a:b]) for a, b in zip(starts, [*starts[1:], len(seen)], strict=True)]


def train(dataset, path, **budget):
    return pofx.train("vae", dataset, run=path, hidden=(8,), latent_dim=2, quiet=True, report=False, **budget)


@pytest.mark.parametrize(("batch", "reads"), [(8, 200), (200, 500)])
def test_a_validation_reads_a_share_of_what_is_trained_on(dataset, tmp_path, seen, batch, reads):
    train(dataset, tmp_path / "run", steps=100, batch_size=batch)
    found = passes(seen)
    assert len(found) == 20
    assert all(torch.equal(x, found[0]) for x in found)
    assert len(found[0]) == reads
    # Of a sorted file from the first to the last.
    held = dataset.validation.batch(torch.arange(len(dataset.validation))).x
    assert float((found[0].mean(0) - held.mean(0)).abs().max()) < 0.02
    assert float(found[0][-1, 0]) > float(held[:, 0].quantile(0.99))


def test_a_larger_budget_goes_on_with_the_same_examples(tmp_path, seen):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32))
    options = data.Options(validation=0.5)
    run = pofx.train(
        "vae",
        tmp_path / "x.npy",
        run=tmp_path / "run",
        steps=20,
        batch_size=400,
        hidden=(8,),
        quiet=True,
        report=False,
        data_options=options,
    )
    api.go_on(run, Budget(steps=100), quiet=True, report=False)
    assert {len(x) for x in passes(seen)} == {200}


def test_by_the_clock_too_all_validations_are_of_the_same_examples(dataset, tmp_path, seen):
    train(dataset, tmp_path / "run", minutes=0.02, batch_size=2)
    found = passes(seen)
    assert len(found) > 1
    assert len(found[0]) >= 200
    assert all(torch.equal(x, found[0]) for x in found)


def test_windows_of_a_text_are_spread_and_a_small_part_is_read_whole():
    text = Split(torch.arange(103, dtype=torch.uint8), tokens=True)
    assert torch.cat([batch.x[:, 0] for batch in text.spread(4, 3, window=10)]).tolist() == [0, 20, 50, 70]
    assert sum(batch.x.numel() for batch in text.spread(11, 3, window=10)) == 103
    rows = Split(torch.arange(10.0)[:, None])
    assert torch.cat([batch.x for batch in rows.spread(5, 2)]).flatten().tolist() == [0, 2, 4, 6, 8]
    assert torch.cat([batch.x for batch in rows.spread(10, 4)]).flatten().tolist() == list(range(10))
