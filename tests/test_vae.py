"""Settings of the variational autoencoder against closed forms, quadrature and enumeration."""

import dataclasses
import itertools
import math

import pytest
import torch
from test_autoencoding import build, descend, examples, images, vectors
from torch.distributions import MultivariateNormal

from pofx import core, data, discovery
from pofx.core import Batch, Noise, UsageError
from pofx.models.autoencoding.vae import VAE
from pofx.nn import collapse
from pofx.nn.gaussian import Gaussian
from pofx.nn.observation import Observation
from pofx.nn.priors import Flow, Vamp

TINY = {"hidden": (16,), "latent_dim": 2}


def gaussian(n=5, latent=3, covariance="full"):
    torch.manual_seed(0)
    return Gaussian.of(torch.randn(n, Gaussian.outputs(latent, covariance)), latent)


def as_torch(q):
    scale = torch.diag_embed(q.log_diagonal.exp())
    return MultivariateNormal(q.mu, scale_tril=scale if q.lower is None else scale + q.lower)


# -------------------------------------------------------------------------------------------------------- posteriors


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_gaussian_is_that_of_torch(covariance):
    q = gaussian(covariance=covariance)
    theirs = as_torch(q)
    z, log_q = q.draw(torch.randn(5, 7, 3))
    torch.testing.assert_close(log_q, theirs.log_prob(z.transpose(0, 1)).T, rtol=1e-4, atol=1e-4)
    one, log_one = q.draw(torch.randn(5, 3))
    torch.testing.assert_close(log_one, theirs.log_prob(one), rtol=1e-4, atol=1e-4)
    standard = MultivariateNormal(torch.zeros(3), torch.eye(3))
    torch.testing.assert_close(q.kl(), torch.distributions.kl_divergence(theirs, standard.expand((5,))), rtol=1e-4, atol=1e-4)


def test_a_full_covariance_can_turn():
    q = gaussian(1, 2)
    z, _ = q.draw(torch.randn(1, 20_000, 2))
    torch.testing.assert_close(torch.cov(z[0].T), as_torch(q).covariance_matrix[0], rtol=0.05, atol=0.05)
    assert as_torch(q).covariance_matrix[0, 0, 1].abs() > 0.1


# ------------------------------------------------------------------------------------------------------------ priors


@pytest.mark.parametrize("name", ["normal", "mixture", "vamp", "flow"])
def test_a_prior_is_one_distribution(name):
    """log_prob, the distribution and the draws agree."""
    model = build(VAE, vectors(), latent_dim=2, hidden=(16,), prior=name, components=5).eval()
    with torch.no_grad():
        if name == "flow":
            for parameter in model.code_prior.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        prior, n = model.code_prior, 4000
        drawn = prior.draw(Noise(0, n))
        log_prob = prior.log_prob(drawn)
        torch.testing.assert_close(log_prob, model.prior().log_prob(drawn), rtol=1e-3, atol=1e-3)
        line = torch.linspace(-8, 8, 200)
        total = prior.log_prob(torch.cartesian_prod(line, line)).exp().sum() * (16 / 199) ** 2
        assert total.item() == pytest.approx(1, abs=0.02)
        # Means under the draws against the integral.
        grid = torch.cartesian_prod(line, line)
        mean = (grid * prior.log_prob(grid).exp()[:, None]).sum(0) * (16 / 199) ** 2
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.15, rtol=0)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_a_learned_prior_beats_the_normal_one(name):
    """Codes of two clusters are no Gaussian: a prior that can follow them pays less."""
    torch.manual_seed(0)
    x = torch.randn(64, 2) * 0.05 + torch.randint(0, 2, (64, 1)) * 4 - 2
    plain, learned = (descend(build(VAE, vectors(2), **TINY, prior=prior, components=10), x, 150, lr=2e-2) for prior in ("normal", name))
    with torch.no_grad():
        assert learned.log_prob(x, samples=200).nats.mean() > plain.log_prob(x, samples=200).nats.mean() + 0.05


def test_pseudo_inputs_of_images_stay_in_range():
    seen = []
    prior = Vamp((1, 2, 2), 3, bounded=True, posterior=lambda x: seen.append(x) or Gaussian(torch.zeros(3, 2), torch.zeros(3, 2)))
    with torch.no_grad():
        prior.pseudo_inputs.copy_(10 * torch.randn_like(prior.pseudo_inputs))
    prior.log_prob(torch.zeros(4, 2))
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1


def test_a_flow_starts_as_a_normal_and_inverts():
    torch.manual_seed(0)
    flow = Flow(4)
    z = torch.randn(100, 4)
    normal = MultivariateNormal(torch.zeros(4), torch.eye(4))
    torch.testing.assert_close(flow.log_prob(z), normal.log_prob(z), atol=1e-3, rtol=0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    drawn = flow.draw(Noise(1, 100))
    assert (drawn - Noise(1, 100).normal(4)).abs().max() > 0.05
    torch.testing.assert_close(flow.flow().transform(drawn), Noise(1, 100).normal(4), atol=1e-3, rtol=0)


# Those whose decoder gives a distribution that a person may choose.
CHOOSING = [
    name
    for name in discovery.names("models")
    if issubclass(model := discovery.model(name), core.Decodes)
    and "likelihood" in {field.name for field in dataclasses.fields(model.Config)}
]


@pytest.mark.parametrize("name", CHOOSING)
def test_the_likelihood_that_the_data_have_is_told(name):
    assert len(CHOOSING) >= 4
    model = discovery.model(name)
    for bits, said in ((1, "bernoulli: likelihoods are of binary images"), (8, "logistic: likelihoods are of 8-bit images")):
        (note,) = build(model, images(bits=bits)).notes
        assert note == f"p(x|z) is {said}"
    (note,) = build(model, images(), likelihood="bernoulli").notes
    assert "no likelihood" in note


# ------------------------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp", "flow"])
def test_the_integral_sums_to_one_over_all_images(prior):
    model = build(VAE, images((1, 2, 2), bits=1), **TINY, prior=prior, components=5).eval()
    with torch.no_grad():
        if prior == "flow":
            for parameter in model.code_prior.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        # The decoder's alone: the encoder's posterior says where a grid will do.
        for parameter in model.decoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    found = model.log_prob(every)
    assert found.kind == "exact"
    assert found.samples is None
    assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-4 if prior == "normal" else 2e-3)


@pytest.mark.parametrize(
    ("centre", "deviation", "kind"), [(1.0, 0.3, "exact"), (1.0, 0.03, "exact"), (1.0, 0.005, "lower bound"), (4.0, 1.0, "lower bound")]
)
def test_the_integral_over_a_learned_prior(centre, deviation, kind):
    """x = z + noise with z from a mixture: exact, unless the prior reaches beyond the grid or falls between its points."""
    model = build(VAE, vectors(2), hidden=(), latent_dim=2, scale=0.5, prior="mixture", components=2).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for network, weight in ((model.encoder, torch.eye(4, 2)), (model.decoder, torch.eye(2))):
            network.layers[-1].weight.copy_(weight)
            network.layers[-1].bias.zero_()
        # A broad guess, which the bound can go by as well.
        model.encoder.layers[-1].weight[2:] = 0
        model.encoder.layers[-1].bias[2:] = math.log(0.5)
        model.code_prior.mu.copy_(torch.tensor([[centre, 0.0], [-1.0, 0.5]]))
        model.code_prior.log_sigma.fill_(math.log(deviation))
    x = 0.5 * torch.randn(20, 2)
    parts = [MultivariateNormal(mu, (0.25 + deviation**2) * torch.eye(2)) for mu in model.code_prior.mu.detach()]
    truth = torch.stack([part.log_prob(x) for part in parts]).logsumexp(0) - math.log(2)
    found = model.log_prob(x)
    assert found.kind == kind
    if kind == "exact":
        torch.testing.assert_close(found.nats, truth, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("spec", [images((1, 6, 6), bits=1), vectors(2)], ids=["images", "vectors"])
def test_the_bound_rises_to_the_integral(spec):
    x = examples(spec, 64)
    model = descend(build(VAE, spec, **TINY), x, 150, lr=2e-2)
    exact = model.log_prob(x).nats.mean()
    bounds = [model.log_prob(x, samples=k) for k in (1, 10, 1000)]
    assert {bound.kind for bound in bounds} == {"lower bound"}
    first, second, third = (bound.nats.mean() for bound in bounds)
    assert first < second < third < exact + 0.02
    assert third.item() == pytest.approx(exact.item(), abs=0.05)


@pytest.mark.parametrize(("scale", "kind"), [(0.5, "exact"), (0.05, "exact"), (0.003, "lower bound")])
def test_an_integral_is_called_exact_only_where_the_grid_resolves_it(scale, kind):
    """x = z + noise: a posterior narrower than the grid's step, or beyond its edge, is left to the bound."""
    model = build(VAE, vectors(2), hidden=(), latent_dim=2, scale=scale).eval()
    with torch.no_grad():
        for layer, weight in ((model.encoder.layers[-1], torch.eye(4, 2) / (1 + scale**2)), (model.decoder.layers[-1], torch.eye(2))):
            layer.weight.copy_(weight)
            layer.bias.zero_()
        model.encoder.layers[-1].bias[2:] = math.log(scale**2 / (1 + scale**2))
        model.encoder.layers[-1].weight[2:] = 0
    x = torch.randn(20, 2)
    truth = MultivariateNormal(torch.zeros(2), (1 + scale**2) * torch.eye(2))
    found = model.log_prob(x)
    assert found.kind == kind
    torch.testing.assert_close(found.nats, truth.log_prob(x), atol=2e-3, rtol=1e-4)
    far = torch.tensor([[7.0, 0.0]])
    assert model.log_prob(far).kind == "lower bound"
    torch.testing.assert_close(model.log_prob(far).nats, truth.log_prob(far), atol=2e-2, rtol=1e-4)


def test_the_integral_of_a_conditional_model():
    spec = images((1, 2, 2), bits=1, label=core.Classes(("a", "b")))
    model = build(VAE, spec, **TINY, conditional=True).eval()
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    for label in (None, torch.zeros(16, dtype=torch.int64), torch.arange(16) % 2):
        found = model.log_prob(every, label=label)
        assert found.kind == "exact"
        if label is None or label.unique().numel() == 1:
            assert found.nats.exp().sum().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(
        model.log_prob(every, label=torch.arange(16) % 2).nats[::2],
        model.log_prob(every, label=torch.zeros(16, dtype=torch.int64)).nats[::2],
    )


@pytest.mark.parametrize("k", [1, 8])
def test_the_loss_of_k_draws_is_the_bound(k):
    x = examples(images((1, 4, 4), bits=1), 4000)
    model = build(VAE, images((1, 4, 4), bits=1), latent_dim=3, hidden=(16,), importance_samples=k, warmup=0.0).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        losses = [model.loss(Batch(x)) for _ in range(5)]
        bound = -model.log_prob(x, samples=k).nats.mean()
    assert torch.stack([loss.total for loss in losses]).mean().item() == pytest.approx(bound.item(), abs=0.08)
    if k > 1:
        assert all(loss.terms["tightening"] < 0 for loss in losses)


# ------------------------------------------------------------------------------------------------- parts of the loss


def test_free_bits_are_free():
    """Below its allowance a dimension's divergence has no gradient; above it, its own."""

    def gradient(model, *names):
        torch.manual_seed(1)
        terms = model.loss(Batch(x)).terms
        return torch.autograd.grad(sum(terms[name] for name in names), tuple(model.encoder.parameters()), allow_unused=True), terms

    x = examples(vectors(), 64)
    generous, mean, spent = (build(VAE, vectors(), **TINY, free_bits=free, warmup=0.0).train() for free in (100.0, 1e-6, 100.0))
    free, terms = gradient(generous, "kl", "free_bits")
    assert all(part is None or part.abs().max() < 1e-6 for part in free)
    assert (terms["kl"] + terms["free_bits"]).item() == pytest.approx(200.0, rel=1e-4)
    both, _ = gradient(mean, "kl", "free_bits")
    alone, _ = gradient(mean, "kl")
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one, other)
    assert any(part is not None and part.abs().max() > 1e-4 for part in alone)
    # The allowance is gone at the end of the budget, and no part of what a model is judged by.
    spent.progress.fill_(1.0)
    assert spent.loss(Batch(x)).terms["free_bits"] == 0
    assert "free_bits" not in generous.eval().loss(Batch(x)).terms


def test_total_correlation_weight_makes_codes_independent():
    torch.manual_seed(0)
    hidden = torch.randn(128, 1)
    x = torch.cat((hidden, hidden + 0.5 * torch.randn(128, 1), torch.randn(128, 1)), 1)

    def dependence(weight):
        model = descend(build(VAE, vectors(), **TINY, total_correlation=weight, warmup=0.0), x, 100, lr=2e-2)
        return torch.corrcoef(model.encode(x).T)[0, 1].abs().item()

    assert dependence(10.0) < max(dependence(1.0), 0.1)


def test_mmd_alone_brings_codes_to_the_prior():
    """A WAE: beta 0, so that nothing else pulls the codes."""
    torch.manual_seed(0)
    x = torch.randn(128, 3) * torch.tensor([3.0, 1.0, 0.3])
    free, held = (descend(build(VAE, vectors(), **TINY, beta=0.0, mmd=mmd), x, 100, lr=2e-2) for mmd in (0.0, 100.0))

    def distance(model):
        code = model.encode(x)
        return (code.mean(0).norm() + (code.std(0) - 1).norm()).item()

    assert distance(held) < 0.5 * distance(free)


@pytest.mark.parametrize(
    "fields",
    [{"free_bits": 1.0, "prior": "vamp"}, {"mmd": 1.0, "importance_samples": 2}, {"total_correlation": 2.0, "covariance": "full"}],
)
def test_settings_that_do_not_go_together_are_refused(fields):
    with pytest.raises(UsageError, match="leave"):
        build(VAE, vectors(), **fields)


def test_collapse_is_noticed():
    x = examples(images((1, 6, 6), bits=1), 256)
    collapsed = descend(build(VAE, images((1, 6, 6), bits=1), **TINY, beta=1000.0), x, 200)
    assert list(collapsed.symptoms(Batch(x))) == ["collapsed codes"]
    torch.manual_seed(0)
    centre = torch.rand(4, 3)[torch.randint(4, (256,))] * 4
    healthy = descend(build(VAE, vectors(), **TINY), centre + 0.1 * torch.randn(256, 3), 300)
    assert healthy.symptoms(Batch(centre)) == {}


def test_codes_that_move_and_tell_nothing_have_collapsed():
    mu = 0.12 * torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    half = torch.cat((4 * mu, mu[:, :4] * 0), 1)[:, 4:]
    nats = lambda mu: (0.5 * mu.square()).mean(0)  # noqa: E731 - of posteriors of variance one
    assert "8 of 8" in collapse.collapsed(mu, nats(mu))["collapsed codes"]
    # Idle halves are usual, and so are codes of a few nats.
    assert collapse.collapsed(mu) == {}
    assert collapse.collapsed(half, 10 * nats(half)) == {}


def test_the_middle_unit_of_two_lies_between_them():
    found = collapse.signs(torch.randn(20, 2), torch.tensor([1.0, 3.0]))
    assert found["codes/kl_median"] == 2


def test_how_much_of_a_code_is_in_use_is_logged(tmp_path):
    import pofx

    run = pofx.train("vae", "digits", run=tmp_path / "run", steps=40, batch_size=32, quiet=True, report=False)
    logged = [line for line in run.metrics() if "codes/active_units" in line]
    assert [line["step"] for line in logged] == list(range(2, 41, 2))
    model = pofx.load(f"{run.path}@last")
    shown = data.load("digits").validation
    last = model.signs(shown.batch(shown.positions(shuffle=0)))
    assert {name: logged[-1][name] for name in last} == pytest.approx(last, rel=0.05)  # there in the precision of training
    assert last["codes/active_units"] <= model.config.latent_dim
    assert 0 <= last["codes/kl_least"] <= last["codes/kl_median"] <= last["codes/kl_most"]
    total = model.posterior(shown.batch(shown.positions()).x).kl().mean()
    assert last["codes/kl_most"] <= total <= model.config.latent_dim * last["codes/kl_most"]


# ------------------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("kind", ["logistic_mixture", "categorical"])
def test_levels_of_a_pixel(kind):
    """Probabilities of the 256 levels sum to one; their mean is the mean, and draws have both."""
    spec = images((2, 1, 1))
    observation = Observation(spec, kind)
    torch.manual_seed(0)
    output = torch.randn(1, *observation.outputs)
    levels = torch.arange(256).view(-1, 1, 1, 1).expand(-1, 2, 1, 1) / 255
    # Both channels at the same level: probabilities of one channel follow from the others at level 0.
    zero = torch.zeros(256, 1, 1, 1)
    joint = torch.cat((levels[:, :1], zero), 1)
    p = (-observation.nll(output.expand(256, -1, -1, -1), joint)).exp()
    p0 = (-observation.nll(output.expand(256, -1, -1, -1), torch.cat((zero, levels[:, 1:]), 1))).exp()
    p, p0 = p / p.sum(), p0 / p0.sum()
    every = torch.stack([torch.cat((levels[i : i + 1, :1].expand(256, -1, -1, -1), levels[:, 1:]), 1) for i in range(0, 256, 51)])
    rows = [(-observation.nll(output.expand(256, -1, -1, -1), part)).exp().sum() for part in every]
    torch.testing.assert_close(torch.stack(rows), p[::51], atol=1e-4, rtol=1e-3)
    mean = observation.mean(output)[0, :, 0, 0]
    expected = torch.stack([(p * levels[:, 0, 0, 0]).sum(), (p0 * levels[:, 0, 0, 0]).sum()])
    torch.testing.assert_close(mean, expected, atol=3e-3, rtol=0)
    drawn = observation.draw(output.expand(4000, -1, -1, -1), Noise(0, 4000))
    torch.testing.assert_close(drawn.mean(0)[:, 0, 0], expected, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn * 255, (drawn * 255).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("likelihood", ["logistic_mixture", "categorical"])
def test_pixels_of_their_own_train(architecture, likelihood):
    x = examples(images((3, 8, 8)), 16)
    model = build(VAE, images((3, 8, 8)), hidden=(16,), channels=8, architecture=architecture, likelihood=likelihood)
    with torch.no_grad():
        before = model.loss(Batch(x)).terms["reconstruction"].item()
    after = descend(model, x, 60, lr=5e-3)
    with torch.no_grad():
        assert after.loss(Batch(x)).terms["reconstruction"].item() < before
        assert after.log_prob(x, samples=2).space == "8-bit"
        assert after.decode(after.encode(x)).shape == x.shape


def test_a_fixed_scale_stays():
    model = build(VAE, vectors(), hidden=(16,), scale=0.5)
    assert not model.observation.log_scale.requires_grad
    x = examples(vectors(), 8)
    descend(model, x, 5)
    assert model.observation.log_scale.item() == pytest.approx(math.log(0.5))
    with pytest.raises(UsageError, match="scale is of a gaussian"):
        build(VAE, images(), scale=0.5)


# ------------------------------------------------------------------------------------------------ networks of one's own


def test_networks_of_ones_own(tmp_path):
    import pofx

    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6))
    decoder = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Unflatten(1, (1, 8, 8)))
    run = pofx.train(
        "vae", "digits", run=tmp_path / "run", steps=3, latent_dim=3, encoder=encoder, decoder=decoder, quiet=True, report=False
    )
    model = pofx.load(run.path, encoder=encoder, decoder=decoder)
    x = torch.rand(2, 1, 8, 8)
    assert model.decode(model.encode(x)).shape == x.shape
    assert model.log_prob(x.mul(255).round() / 255, samples=3).nats.isfinite().all()
    with pytest.raises(UsageError, match="custom encoder"):
        pofx.load(run.path)
    with pytest.raises(UsageError, match="where the model needs"):
        pofx.train("vae", "digits", run=tmp_path / "wrong", steps=3, latent_dim=4, encoder=encoder, quiet=True)


def test_collapse_is_noticed_whatever_the_prior():
    x = torch.randn(256, 3)
    for prior in ("mixture", "vamp", "flow"):
        model = build(VAE, vectors(), **TINY, prior=prior, components=5).eval()
        model.progress.fill_(1.0)
        with torch.no_grad():
            for parameter in list(model.encoder.parameters())[:-1]:
                parameter.zero_()
        assert list(model.symptoms(Batch(x))) == ["collapsed codes"]
    assert model.symptoms(Batch(x[:5])) == {}
