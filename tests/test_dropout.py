"""Dropout with cheap random numbers."""

import pytest
import torch

from pofx.nn.dropout import Dropout, spared


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_number_is_silenced_with_its_probability_and_the_mean_stays(p, dtype):
    n = 40_000
    mask = spared(torch.empty(n, dtype=dtype), p)
    kept = mask != 0
    assert set(mask.tolist()) == {0.0, float(torch.tensor(1 / (1 - p), dtype=dtype))}
    # Five standard deviations; neighbours know nothing of each other, though four of them share a random number.
    assert abs(kept.double().mean() - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
    for lag in (1, 2, 3, 4):
        both = (kept[lag:] & kept[:-lag]).double().mean()
        assert abs(both - (1 - p) ** 2) < 5 * (p * (1 - p) / n) ** 0.5


def test_it_is_that_of_pytorch_at_both_ends_and_in_evaluation():
    x = torch.randn(5, 3)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_silenced_numbers_have_no_gradient_and_equal_seeds_are_equal():
    x = torch.randn(64, 7, requires_grad=True)
    torch.manual_seed(3)
    y = Dropout(0.3)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient == 0, y == 0)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3)(x), y)


def test_the_order_in_memory_is_that_of_the_features():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(x).stride() == x.stride()
    wide = torch.randn(4, 1).expand(4, 6)
    assert spared(wide, 0.5).shape == wide.shape
    assert len(set(spared(wide, 0.5).flatten().tolist())) == 2
