"""Promises of the hierarchical variational autoencoder: its codes, its divergences against sampling, its bound against the exact one."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from pofx import core, losses
from pofx.core import Batch, DataSpec, Noise, Scores, UsageError
from pofx.models.autoencoding.hierarchical_vae import HierarchicalVAE
from pofx.nn import importance
from pofx.nn.conv import pyramid

PIXELS = DataSpec("images", (1, 8, 8), bits=1, size=60_000)
VECTORS = DataSpec("vectors", (3,), size=1000)


def build(spec, **fields):
    torch.manual_seed(0)
    return HierarchicalVAE(spec, dataclasses.replace(HierarchicalVAE.recipe(spec, None).config, **fields))


def bars(n=64, seed=0):
    """8 x 8 images of two or three random lines: few codes, so that a little training says something."""
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.rand(n, 1, 8, 1, generator=generator) < 0.15).float()
    columns = (torch.rand(n, 1, 1, 8, generator=generator) < 0.15).float()
    return torch.maximum(rows.expand(-1, -1, 8, 8), columns.expand(-1, -1, 8, 8)).contiguous()


@pytest.fixture(scope="module")
def trained():
    """A small model after a few hundred moves on lines."""
    model = build(PIXELS, layers=(1, 2), latents=(8, 2), widths=(64, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for move in range(250):
        model.progress.fill_(move / 250)
        optimizer.zero_grad()
        model.loss(Batch(bars(32, seed=move))).total.backward()
        optimizer.step()
    model.progress.fill_(1)
    return model.eval().requires_grad_(False)


def test_the_divergence_is_the_mean_of_the_log_ratio(trained):
    """KL of all layers in closed form against log q - log p of drawn codes, of a hierarchy, in which codes depend on codes."""
    x = bars(1, seed=7)
    noise = torch.randn(20_000, trained.latent, generator=torch.Generator().manual_seed(0))
    _, mu, log_var = trained._walk(x, noise)
    eps = mu + (0.5 * log_var).exp() * noise
    ratio = losses.normal_log_prob(eps, mu, log_var) - losses.normal_log_prob(eps, 0.0, 0.0)
    kl = float(trained.layer_kl(mu, log_var, noise).sum())
    assert kl > 3
    assert float(ratio.mean()) == pytest.approx(kl, abs=5 * float(ratio.std()) / math.sqrt(len(ratio)))
    # Lower layers see what was drawn above them.
    assert mu[:, trained.ladder.codes[0] :].std(0).max() > 0.01


@pytest.mark.parametrize("layers", [(1,), (1, 1), (2, 1)])
def test_a_mixture_on_top_is_charged_and_scored_by_its_density(layers):
    torch.manual_seed(0)
    sizes = {"layers": layers, "latents": (2, 3)[: len(layers)], "widths": (16, 8)[: len(layers)]}
    model = build(VECTORS, **sizes, prior="mixture", components=4).eval()
    prior, n = model.prior(), 2000
    x, noise = torch.randn(1, 3), torch.randn(n, model.latent)
    with torch.no_grad():
        output, mu, log_var = model._walk(x, noise)
        eps = mu + (0.5 * log_var).exp() * noise
        ratio = losses.normal_log_prob(eps, mu, log_var) - prior.log_prob(eps)
        kl = model.layer_kl(mu, log_var, noise)
        # The layers below have their divergence in closed form, which the mean over draws approaches.
        closed = losses.normal_log_prob(eps[:, 2:], mu[:, 2:], log_var[:, 2:]) - losses.normal_log_prob(eps[:, 2:], 0.0, 0.0)
        torch.testing.assert_close(kl[0], (ratio - closed).mean(), rtol=1e-4, atol=1e-4)
        weighed = model._weigh(x)(slice(0, 1))(noise[None])[0]
        torch.testing.assert_close(weighed, -model.observation.nll(output, x.expand(n, -1)) - ratio, rtol=1e-4, atol=1e-3)
        drawn = model.code_prior.draw(Noise(0, 4000))
        torch.testing.assert_close(drawn.mean(0), prior.mean, atol=0.1, rtol=0)
        torch.testing.assert_close(drawn.std(0), prior.stddev, atol=0.1, rtol=0)


def test_one_layer_is_a_plain_vae():
    """Without layers below, the posterior is that of the encoder alone and the terms are those of the VAE."""
    model = build(VECTORS, layers=(1,), latents=(2,), widths=(32,)).train()
    x = torch.randn(5, 3)
    torch.manual_seed(3)
    loss = model.loss(Batch(x))
    torch.manual_seed(3)
    noise = torch.randn(5, 2)
    output, mu, log_var = model._walk(x, noise)
    torch.testing.assert_close(mu, model._walk(x, -2 * noise)[1])
    torch.testing.assert_close(loss.terms["kl"], losses.kl_to_standard_normal(mu, log_var).mean())
    torch.testing.assert_close(output, model.ladder(None, mu + (0.5 * log_var).exp() * noise))
    torch.testing.assert_close(loss.terms["reconstruction"], model.observation.nll(output, x).mean())


def linear(model, generator):
    """Makes the decoder a linear map of the codes; where h is near 30 a SiLU is the identity. Gives the map."""
    first, second = model.ladder.layers[0][0], model.ladder.layers[1][0]
    up, head = model.ladder.up[0].layer, model.ladder.head
    with torch.no_grad():
        model.ladder.start.fill_(30)
        for parameter in (first.add.bias, second.add.bias, head.bias, up.bias, first.block.second.bias, second.block.second.bias):
            parameter.zero_()
        for layer in (first, second):  # the proposal is the prior
            layer.posterior.weight.zero_()
            layer.posterior.bias.zero_()
        for parameter in (first.add.weight, second.add.weight, head.weight):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        up.weight.copy_(torch.eye(len(up.weight)))
        head.bias.copy_(-head.weight.sum(1) * 30)
        model.observation.log_scale.copy_(torch.tensor([-0.3, 0.0, -0.1]))
    return head.weight.detach() @ torch.cat((first.add.weight, second.add.weight), 1).detach()


def test_the_bound_reaches_the_exact_likelihood_of_a_linear_gaussian_hierarchy():
    model = build(VECTORS, layers=(1, 1), latents=(1, 1), widths=(4, 4)).eval()
    generator = torch.Generator().manual_seed(1)
    loading = linear(model, generator)
    covariance = loading @ loading.T + torch.diag((2 * model.observation.log_scale.detach()).exp())
    exact = MultivariateNormal(torch.zeros(3), covariance)
    x = exact.sample((40,))
    truth = exact.log_prob(x)
    bounds = {k: model.log_prob(x, samples=k).nats for k in (1, 16, 4096)}
    assert bounds[1].mean() < bounds[16].mean() < truth.mean() + 0.02
    assert (bounds[1] - truth).mean() < -0.1
    assert float((bounds[4096] - truth).mean()) == pytest.approx(0, abs=0.05)


def test_the_bound_rises_with_k_from_the_elbo(trained):
    x = bars(128, seed=9)
    single, some, many = (float(trained.log_prob(x, samples=k).nats.mean()) for k in (1, 10, 100))
    assert single < some < many
    torch.manual_seed(0)
    assert single == pytest.approx(-float(trained.loss(Batch(x)).total), abs=1.0)
    # A longer sum starts with the same samples: nobody's number depends on the company.
    torch.testing.assert_close(trained.log_prob(x[5:6], samples=70).nats, trained.log_prob(x, samples=70).nats[5:6], rtol=0, atol=1e-3)


def test_noise_of_the_bound_goes_on_where_fewer_samples_end():
    x, seen = torch.randn(3, 2), {}
    for k in (10, 100):
        seen[k] = []
        importance.importance_bound(x, lambda rows, k=k: lambda noise: seen[k].append(noise) or noise.sum(2), noise=4, samples=k, numbers=1)
    assert torch.equal(seen[10][0], seen[100][0][:, :10])
    assert sum(part.shape[1] for part in seen[100]) == 100
    assert not torch.equal(seen[100][0][:, :36], seen[100][1])


def test_a_code_holds_every_layer(trained):
    x = bars(64, seed=3)
    z = trained.encode(x)
    assert z.shape == (64, 8 + 2 * (2 * 4 * 4))
    again = trained.decode(z)
    # What the walk of the posterior itself gives without noise.
    torch.testing.assert_close(again, trained.observation.mean(trained._walk(x, torch.zeros_like(z))[0]))
    assert (again - x).square().mean() < 0.3 * x.var()
    # Each scale says something to the data.
    for part in z.split(trained.ladder.codes, 1):
        assert part.var(0).max() > 0.01


def test_samples_are_decoded_draws_of_the_prior(trained):
    z = Noise(3, 4).normal(trained.latent)
    assert torch.equal(trained.sample(4, noise=Noise(3, 4)), trained.decode(z))
    assert torch.equal(trained.sample(4, noise=Noise(3, 4), temperature=0.0), trained.decode(0 * z))
    drawn = trained.sample(4, noise=Noise(3, 4), mode="draw")
    assert ((drawn == 0) | (drawn == 1)).all()


def test_aggregate_posterior_of_standardised_codes_is_the_prior(trained):
    """Were codes not standardised, their spread would be that of each layer's own prior."""
    x = bars(2000, seed=11)
    noise = torch.randn(len(x), trained.latent, generator=torch.Generator().manual_seed(2))
    _, mu, log_var = trained._walk(x, noise)
    eps = mu + (0.5 * log_var).exp() * noise
    for part in eps.split(trained.ladder.codes, 1):
        assert float(part.mean()) == pytest.approx(0, abs=0.15)
        assert float(part.square().mean()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 20, 36), (1, 1, 1), (3, 7, 13), (1, 112, 92)])
@pytest.mark.parametrize("scales", [2, 3])
def test_any_image_folds_and_unfolds(shape, scales):
    spec = DataSpec("images", shape, bits=8, size=100)
    fields = {"layers": (1, 2, 1)[:scales], "latents": (4, 2, 1)[:scales], "widths": (32, 16, 8)[:scales]}
    if scales > len(pyramid(*shape[1:])):
        with pytest.raises(UsageError, match="2 to 2 scales"):
            build(spec, **fields)
        return
    model = build(spec, **fields)
    x = torch.rand(2, *shape)
    loss = model.loss(Batch(x))
    loss.total.backward()
    assert loss.total.isfinite()
    assert model.decode(model.encode(x)).shape == x.shape


def test_warm_up_and_free_bits_follow_progress():
    model = build(VECTORS, free_bits=2.0, warmup=0.5, beta=3.0).train()
    batch = Batch(torch.randn(8, 3))
    idle = {}
    for progress in (0.25, 0.5, 1.0):
        model.progress.fill_(progress)
        torch.manual_seed(0)
        loss = model.loss(batch)
        assert loss.weights["kl"] == loss.weights["free_bits"] == 3 * min(1, progress / 0.5)
        kl = [loss.metrics["kl_1"], loss.metrics["kl_2"]]
        torch.testing.assert_close(sum(kl), loss.terms["kl"].detach())
        torch.testing.assert_close(loss.terms["free_bits"].detach(), sum((2 * (1 - progress) - value).clamp(min=0) for value in kl))
        idle[progress] = loss
    # While every layer holds less than its allowance, nothing pulls it to its prior; at the end there is no allowance.
    layers = [layer.posterior.weight for scale in model.ladder.layers for layer in scale]
    charged = idle[0.25].terms["kl"] + idle[0.25].terms["free_bits"]
    assert all(gradient.abs().max() < 1e-6 for gradient in torch.autograd.grad(charged, layers, retain_graph=True))
    charged = idle[1.0].terms["kl"] + idle[1.0].terms["free_bits"]
    assert all(gradient.abs().max() > 1e-6 for gradient in torch.autograd.grad(charged, layers))
    assert set(model.eval().loss(batch).terms) == {"reconstruction", "kl"}


def test_an_idle_layer_is_named(trained):
    batch = Batch(bars(256, seed=1))
    assert trained.symptoms(batch) == {}
    model = build(PIXELS, layers=(1, 2), latents=(8, 2), widths=(64, 32)).eval()
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        model.ladder.layers[1][0].posterior.weight.zero_()
        model.ladder.layers[1][0].posterior.bias.zero_()
    told = model.symptoms(batch)
    assert "of 3 latent layers" in told["idle layers"]
    assert "number 2 holds" in told["idle layers"]
    nats = model.signs(batch)
    assert list(nats) == ["codes/layer_1", "codes/layer_2", "codes/layer_3"]
    assert nats["codes/layer_2"] < 0.01 < nats["codes/layer_1"]


def test_no_bfloat16_leaves_the_ladder(trained):
    with core.precision(torch.bfloat16):
        assert trained.encode(bars(2)).dtype == torch.float32
        rough = trained.log_prob(bars(16), samples=64).nats
    exact = trained.log_prob(bars(16), samples=64).nats
    assert float((rough - exact).abs().mean()) < 0.5


@pytest.mark.parametrize(
    ("spec", "fields", "told"),
    [
        (VECTORS, {"layers": (1, 1, 1)}, "layers 3, latents 2"),
        (VECTORS, {"architecture": "conv"}, "choose dense"),
        (PIXELS, {"layers": (1,), "latents": (4,), "widths": (8,)}, "have 2 to 2 scales"),
        (PIXELS, {"layers": (1,) * 4, "latents": (4,) * 4, "widths": (8,) * 4}, "4 x 4"),
    ],
)
def test_unfitting_configurations_are_refused(spec, fields, told):
    with pytest.raises(UsageError, match=told):
        build(spec, **fields)


def test_a_loss_has_no_likelihood():
    model = build(DataSpec("images", (1, 8, 8), bits=8, size=100), likelihood="bernoulli")
    assert Scores not in model.capabilities
    with pytest.raises(UsageError, match="logistic"):
        model.log_prob(torch.rand(1, 1, 8, 8))
    with pytest.raises(UsageError, match="at least 1"):
        build(PIXELS).log_prob(bars(1), samples=0)
    with pytest.raises(UsageError, match="no labels"):
        build(PIXELS).encode(bars(1), label=torch.zeros(1, dtype=torch.int64))
