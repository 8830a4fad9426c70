"""Convolutions under penalties on slopes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pofx import losses
from pofx.convolution import twice_differentiable
from pofx.nn.growing import halve


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "bias"), [(1, 1, 1, True), (2, 1, 1, True), (2, 0, 2, False), ((2, 1), (0, 2), 1, True)]
)
def test_first_and_second_derivatives_are_those_of_the_convolution(stride, padding, groups, bias):
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    more = (torch.randn(4, dtype=torch.float64, requires_grad=True),) if bias else ()

    def convolved(x, weight, bias=None):
        with twice_differentiable():
            return F.conv2d(x, weight, bias, stride, padding, 1, groups)

    assert torch.equal(convolved(x, weight, *more), F.conv2d(x, weight, *(more or (None,)), stride, padding, 1, groups))
    assert torch.autograd.gradcheck(convolved, (x, weight, *more))
    assert torch.autograd.gradgradcheck(convolved, (x, weight, *more))


def critic(dtype):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Softplus(), nn.Conv2d(8, 16, 3, padding="same"), nn.Softplus(), nn.Flatten(),
        nn.Linear(16 * 49, 1),
    ).to(dtype, memory_format=torch.channels_last)  # fmt: skip


@pytest.mark.parametrize(("dtype", "autocast", "tolerance"), [(torch.float64, False, 1e-10), (torch.float32, True, 0.03)])
def test_a_penalty_moves_weights_as_it_would_with_pytorchs_own_convolutions(dtype, autocast, tolerance):
    network, x = critic(dtype), torch.rand(8, 1, 14, 14, dtype=dtype)
    parameters = [parameter for name, parameter in network.named_parameters() if name != "5.bias"]  # a slope knows no last bias
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = losses.zero_centred_penalty(lambda x: network(x)[:, 0], x)
    here = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(here).sum(), here, create_graph=True)
    theirs = 0.5 * slope.flatten(1).square().sum(1).mean()
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        assert a.dtype == b.dtype
        assert torch.linalg.vector_norm(a - b) <= tolerance * torch.linalg.vector_norm(b)


def test_within_the_context_weights_have_no_gradients_and_outside_they_have():
    x, weight = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(3, 1, 3, 3, requires_grad=True)
    with twice_differentiable():
        y = F.conv2d(x, weight).sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        with pytest.raises(RuntimeError, match="used in the graph"):
            torch.autograd.grad(y, weight, retain_graph=True)
    assert torch.autograd.grad(y, weight, retain_graph=True)[0].any()
    assert torch.autograd.grad(slope.square().sum(), weight)[0].any()


@pytest.mark.parametrize("size", [(4, 6), (7, 5), (1, 3)])
def test_halving_has_the_derivatives_of_pooling(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    assert torch.equal(halve(x), F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))
    assert torch.autograd.gradcheck(halve, x)
    assert torch.autograd.gradgradcheck(halve, x)
