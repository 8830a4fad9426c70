"""Laws and oracles of the losses: closed forms, sums to one, directions."""

import math

import pytest
import torch
from torch import nn

from pofx import losses


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_kl_agrees_with_monte_carlo(generator):
    mu, log_var = torch.randn(1, 3, generator=generator), torch.randn(1, 3, generator=generator)
    z = mu + (0.5 * log_var).exp() * torch.randn(400_000, 3, generator=generator)
    difference = losses.normal_log_prob(z, mu, log_var) - losses.normal_log_prob(z, 0.0, 0.0)
    closed = losses.kl_to_standard_normal(mu, log_var).item()
    error = difference.std().item() / math.sqrt(len(z))
    assert abs(difference.mean().item() - closed) < 5 * error
    assert losses.kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max() == 0


def test_normal_log_prob_is_that_of_torch(generator):
    z, mu, log_var = (torch.randn(5, 4, generator=generator) for _ in range(3))
    expected = torch.distributions.Normal(mu, (0.5 * log_var).exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(losses.normal_log_prob(z, mu, log_var), expected)


def test_bernoulli_is_that_of_torch_and_sums_to_one(generator):
    logits = torch.randn(1, 4, generator=generator) * 3
    images = torch.tensor([[(i >> bit) & 1 for bit in range(4)] for i in range(16)], dtype=torch.float32)
    nll = losses.bernoulli_nll(logits.expand(16, -1), images)
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-5)
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(images).sum(-1)
    torch.testing.assert_close(nll, expected)
    # Far logits neither overflow nor lose their slope.
    assert losses.bernoulli_nll(torch.full((1, 1), 500.0), torch.zeros(1, 1)).item() == pytest.approx(500)


def test_gaussian_and_squared_error(generator):
    x, mean = torch.randn(6, 2, 3, generator=generator), torch.randn(6, 2, 3, generator=generator)
    log_scale = torch.randn(2, 3, generator=generator)
    expected = -torch.distributions.Normal(mean, log_scale.exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(losses.gaussian_nll(mean, log_scale, x), expected)
    constant = 0.5 * 6 * math.log(2 * math.pi)
    torch.testing.assert_close(losses.squared_error(mean, x) + constant, losses.gaussian_nll(mean, torch.zeros(()), x))
    mask = (torch.rand(6, 2, 3, generator=generator) < 0.5).float()
    # What the mask hides has no influence at all.
    elsewhere = torch.where(mask == 0, 1e3, x)
    torch.testing.assert_close(
        losses.gaussian_nll(mean, log_scale, x, mask=mask), losses.gaussian_nll(mean, log_scale, elsewhere, mask=mask)
    )
    torch.testing.assert_close(losses.squared_error(mean, x, mask=mask), losses.squared_error(mean, elsewhere, mask=mask))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 0.2, 30.0])
@pytest.mark.parametrize("mean", [-2.0, 0.0, 0.3, 1.0, 4.0])
def test_discretised_logistic_sums_to_one(mean, scale):
    levels = torch.arange(256).float().mul_(1 / 255)[:, None]
    nll = losses.discretised_logistic_nll(torch.full((256, 1), mean), torch.tensor(math.log(scale)), levels)
    assert nll.isfinite().all()
    # nll, in float32 with |x - mean| / scale up to 4e4, carries some 1e-3.
    assert (-nll.double()).exp().sum().item() == pytest.approx(1, abs=1e-3 if scale < 1e-3 else 1e-4)


def test_discretised_logistic_is_the_mass_of_the_bin(generator):
    mean, scale = torch.rand(500, 1, generator=generator), 0.07
    x = torch.randint(1, 255, (500, 1), generator=generator) / 255
    a, b = ((x - mean).double() + 1 / 510) / scale, ((x - mean).double() - 1 / 510) / scale
    nll = losses.discretised_logistic_nll(mean, torch.tensor(math.log(scale)), x)
    torch.testing.assert_close(nll.double(), -(a.sigmoid() - b.sigmoid()).log(), rtol=1e-4, atol=1e-4)


def test_discretised_logistic_has_gradients_everywhere():
    mean = torch.tensor([[-50.0], [50.0], [0.5]], requires_grad=True)
    log_scale = torch.tensor(-6.0, requires_grad=True)
    losses.discretised_logistic_nll(mean, log_scale, torch.tensor([[1.0], [0.0], [128 / 255]])).sum().backward()
    assert mean.grad.isfinite().all()
    assert log_scale.grad.isfinite()
    # A step against the gradient moves the mean towards x.
    assert mean.grad[0] < 0 < mean.grad[1]


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_total_correlation_of_a_gaussian(generator, correlation):
    """Posteriors that aggregate to a Gaussian of known correlation: TC = -1/2 log(1 - rho^2)."""
    n, noise = 1000, 0.3
    factor = torch.linalg.cholesky(torch.tensor([[1.0, correlation], [correlation, 1.0]]) - noise**2 * torch.eye(2))
    mu = torch.randn(n, 2, generator=generator) @ factor.T
    log_var = torch.full((n, 2), 2 * math.log(noise))
    found = losses.total_correlation(mu + noise * torch.randn(n, 2, generator=generator), mu, log_var, n)
    assert found.item() == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.08)


def test_mmd_is_zero_for_equal_distributions_and_grows_with_a_shift(generator):
    x, y = torch.randn(2, 1000, 4, generator=generator)
    none, little, much = (losses.mmd(x, y + shift).item() for shift in (0.0, 0.5, 1.0))
    assert abs(none) < 0.02
    assert 5 * abs(none) < little < much


def test_categorical_is_that_of_torch(generator):
    logits = torch.randn(7, 5, generator=generator)
    drawn = torch.randint(5, (7,), generator=generator)
    nll = losses.categorical_nll(logits, nn.functional.one_hot(drawn, 5).float())
    torch.testing.assert_close(nll, nn.functional.cross_entropy(logits, drawn, reduction="none"))


def test_adversarial_losses_are_binary_cross_entropies(generator):
    logits = torch.randn(50, generator=generator) * 20
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(losses.real_loss(logits), cross_entropy(logits, torch.ones(50)))
    torch.testing.assert_close(losses.fake_loss(logits), cross_entropy(logits, torch.zeros(50)))
    torch.testing.assert_close(losses.generator_loss(logits), cross_entropy(logits, torch.ones(50)))


def test_adversarial_losses_push_logits_their_way():
    def slope(loss):
        logit = torch.tensor([-3.0], requires_grad=True)
        loss(logit).backward()
        return logit.grad.item()

    assert slope(losses.real_loss) < 0 < slope(losses.fake_loss)
    # Non-saturating: the slope of a generator that is found out (logit -3) is near 1, where log(1 - D) has 0.05.
    assert slope(losses.generator_loss) < -0.9


def test_r1_of_a_linear_discriminator_is_half_the_squared_weight(generator):
    discriminator = nn.Linear(6, 1)
    x = torch.randn(9, 2, 3, generator=generator)
    before = x.clone()
    penalty = losses.r1_penalty(lambda x: discriminator(x.flatten(1)).squeeze(1), x)
    torch.testing.assert_close(penalty, 0.5 * discriminator.weight.square().sum())
    penalty.backward()
    # d/dw of 1/2 ||w||^2 is w.
    torch.testing.assert_close(discriminator.weight.grad, discriminator.weight.detach())
    assert not x.requires_grad
    assert torch.equal(x, before)


def test_r1_works_under_no_grad_and_on_frozen_input():
    penalty = None
    with torch.no_grad():
        penalty = losses.r1_penalty(lambda x: x.square().sum(1), torch.ones(4, 3))
    # grad is 2x, so 1/2 * 4 * 3.
    assert penalty.item() == pytest.approx(6)
