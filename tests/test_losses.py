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


def test_closed_forms_of_adversarial_losses(generator):
    logits = torch.randn(50, generator=generator) * 20
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(50), torch.zeros(50)
    for name in ("non_saturating", "minimax"):
        torch.testing.assert_close(losses.ADVERSARIAL[name].of_real(logits), cross_entropy(logits, ones))
        torch.testing.assert_close(losses.ADVERSARIAL[name].of_fake(logits), cross_entropy(logits, zeros))
    torch.testing.assert_close(losses.NON_SATURATING.of_generator(logits), cross_entropy(logits, ones))
    # What one player of the lecture's game pays for the fakes, the other one earns.
    torch.testing.assert_close(losses.ADVERSARIAL["minimax"].of_generator(logits), -cross_entropy(logits, zeros))
    at = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    expected = {
        "least_squares": ([4.5, 2, 0.5, 0, 2], [0.5, 0, 0.5, 2, 8], [4.5, 2, 0.5, 0, 2]),
        "hinge": ([3, 2, 1, 0, 0], [0, 0, 1, 2, 4], [2, 1, 0, -1, -3]),
        "wasserstein": ([2, 1, 0, -1, -3], [-2, -1, 0, 1, 3], [2, 1, 0, -1, -3]),
    }
    for name, sides in expected.items():
        loss = losses.ADVERSARIAL[name]
        for side, values in zip((loss.real, loss.fake, loss.generator), sides, strict=True):
            torch.testing.assert_close(side(at), torch.tensor(values, dtype=torch.float32))


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_adversarial_losses_push_logits_their_way(name, relativistic):
    loss = losses.ADVERSARIAL[name]
    real, fake = (torch.tensor([0.3, -0.4], requires_grad=True) for _ in range(2))
    paired = losses.paired(real, fake)
    (loss.of_real(paired) if relativistic else loss.of_real(real) + loss.of_fake(fake)).backward()
    # The discriminator's descent raises D(x) and lowers D(G(z)), of each example.
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    real.grad = fake.grad = None
    loss.of_generator(-losses.paired(real.detach(), fake) if relativistic else fake).backward()
    assert (fake.grad < 0).all()


def test_minimax_stalls_where_the_discriminator_is_sure():
    def slope(name):
        logit = torch.tensor([-6.0], requires_grad=True)
        losses.ADVERSARIAL[name].of_generator(logit).backward()
        return logit.grad.item()

    assert slope("minimax") == pytest.approx(-math.exp(-6) / (1 + math.exp(-6)))
    assert slope("non_saturating") < -0.99


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_no_constant_in_the_logits_matters_to_pairs(name):
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([-0.5, 2.0])
    torch.testing.assert_close(losses.paired(real + 7, fake + 7), losses.paired(real, fake))
    # A pair that is told apart costs less than one that is taken for the other way round.
    loss = losses.ADVERSARIAL[name]
    assert loss.of_real(losses.paired(real[:1], fake[:1])) < loss.of_real(losses.paired(fake[:1], real[:1]))


@pytest.fixture
def linear():
    return nn.Linear(6, 1)


def logit(linear):
    return lambda x: linear(x.flatten(1)).squeeze(1)


def test_zero_centred_penalty_of_a_linear_discriminator_is_half_the_squared_weight(generator, linear):
    x = torch.randn(9, 2, 3, generator=generator)
    before = x.clone()
    penalty = losses.zero_centred_penalty(logit(linear), x)
    torch.testing.assert_close(penalty, 0.5 * linear.weight.square().sum())
    penalty.backward()
    # d/dw of 1/2 ||w||^2 is w.
    torch.testing.assert_close(linear.weight.grad, linear.weight.detach())
    assert not x.requires_grad
    assert torch.equal(x, before)


def test_one_centred_penalty_draws_slopes_to_one_from_both_sides(generator, linear):
    x = torch.randn(9, 2, 3, generator=generator)
    for norm, way in ((3.0, 1), (0.2, -1)):
        with torch.no_grad():
            linear.weight *= norm / linear.weight.norm()
        linear.weight.grad = None
        penalty = losses.one_centred_penalty(logit(linear), x)
        assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-4)
        penalty.backward()
        # The gradient of (||w|| - 1)^2 is 2 (||w|| - 1) w / ||w||: descent shortens a long weight and lengthens a short one.
        torch.testing.assert_close(linear.weight.grad, (2 * (norm - 1) / norm * linear.weight).detach())
        assert way * (linear.weight.grad * linear.weight).sum() > 0


def test_one_centred_penalty_of_a_flat_discriminator_is_finite():
    weight = torch.zeros(3, requires_grad=True)
    penalty = losses.one_centred_penalty(lambda x: x @ weight, torch.ones(4, 3))
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert weight.grad.isfinite().all()


def test_penalties_work_under_no_grad_and_on_frozen_input():
    with torch.no_grad():
        penalty = losses.zero_centred_penalty(lambda x: x.square().sum(1), torch.ones(4, 3))
    # grad is 2x, so 1/2 * 4 * 3.
    assert penalty.item() == pytest.approx(6)


def test_interpolates_lie_on_the_lines_and_perturbed_examples_close_by():
    torch.manual_seed(0)
    real, fake = torch.zeros(2000, 2, 3), torch.ones(2000, 2, 3) * torch.arange(1.0, 7.0).view(2, 3)
    between = losses.interpolates(real, fake) / fake
    # One share an example, the same for all its numbers, uniform over [0, 1].
    torch.testing.assert_close(between, between[:, :1, :1].expand_as(between))
    assert torch.quantile(between[:, 0, 0], torch.tensor([0.25, 0.5, 0.75])).allclose(torch.tensor([0.25, 0.5, 0.75]), atol=0.05)
    x = 3.0 * torch.randn(2000, 4)
    moved = losses.perturbed(x) - x
    half = 0.5 * x.std(correction=0)
    assert moved.min() >= 0
    assert moved.max() <= half + 1e-5
    assert moved.mean().item() == pytest.approx(half.item() / 2, rel=0.05)
