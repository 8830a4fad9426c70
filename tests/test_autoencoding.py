"""Promises of the autoencoder and the variational autoencoder, and of the networks and observations that they use."""

import dataclasses
import math

import pytest
import torch

from pofx import core
from pofx.core import Batch, Classes, Column, DataSpec, Decodes, Encodes, Noise, Samples, Scores, UsageError
from pofx.models.autoencoding.autoencoder import Autoencoder
from pofx.models.autoencoding.vae import VAE
from pofx.nn.conv import ConvDecoder, ConvEncoder, PoolingEncoder, UpsamplingDecoder, pyramid
from pofx.nn.observation import Observation

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 112, 92), (1, 20, 36), (1, 1, 1), (3, 7, 13)]
TABLE = DataSpec(
    "vectors",
    (7,),
    size=100,
    columns=(
        Column("age", "integer", 0, 1),
        Column("age", "missing", 1, 2),
        Column("colour", "category", 2, 5),
        Column("height", "number", 5, 6),
        Column("height", "missing", 6, 7),
    ),
)


def images(shape=(1, 8, 8), bits=8, **fields):
    return DataSpec("images", shape, bits=bits, size=1000, **fields)


def vectors(features=3, **fields):
    return DataSpec("vectors", (features,), size=1000, **fields)


def examples(spec, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if spec.columns:
        flags = torch.rand(n, 2, generator=generator) < 0.4
        numbers = torch.randn(n, 2, generator=generator) * ~flags
        colour = torch.nn.functional.one_hot(torch.randint(3, (n,), generator=generator), 3)
        return torch.cat((numbers[:, :1], flags[:, :1], colour, numbers[:, 1:], flags[:, 1:]), 1).float()
    if spec.kind != "images":
        return torch.randn(n, *spec.shape, generator=generator)
    x = torch.randint(256, (n, *spec.shape), generator=generator).float() / 255
    return x.round() if spec.bits == 1 else x


def build(cls, spec, *, seed=0, **fields):
    torch.manual_seed(seed)
    return cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields))


def descend(model, x, steps, *, lr=2e-3, label=None):
    """A throw-away loop; the trainer has tests of its own."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train().progress.fill_(1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(Batch(x, label))
        loss.total.backward()
        optimizer.step()
    return model.eval()


# ---------------------------------------------------------------------------------------------------------- networks


def test_pyramid_halves_and_rounds_up():
    assert pyramid(28, 28) == ((28, 28), (14, 14), (7, 7))
    assert pyramid(112, 92) == ((112, 92), (56, 46), (28, 23), (14, 12), (7, 6))
    assert pyramid(1, 1) == ((1, 1), (1, 1))


@pytest.mark.parametrize("shape", IMAGES)
def test_convolutional_networks_fit_any_image(shape):
    x = torch.rand(2, *shape)
    assert ConvEncoder(shape, 5, context=3)(x, torch.zeros(2, 3)).shape == (2, 5)
    assert ConvDecoder(5, shape)(torch.randn(2, 5)).shape == x.shape
    assert UpsamplingDecoder(shape)(PoolingEncoder(shape)(x)).shape == x.shape


def test_the_lecture_code_is_7_7_32():
    assert PoolingEncoder((1, 28, 28))(torch.rand(2, 1, 28, 28)).shape == (2, 7 * 7 * 32)


@pytest.mark.parametrize("spec", [images((1, 9, 6)), vectors()])
@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_no_bfloat16_leaves_a_network(cls, spec, monkeypatch):
    seen = []
    compute = Observation.nll
    monkeypatch.setattr(Observation, "nll", lambda self, output, x: seen.append(output.dtype) or compute(self, output, x))
    model = build(cls, spec, architecture="conv" if spec.kind == "images" else "dense")
    with core.precision(torch.bfloat16):
        total = model.loss(Batch(examples(spec))).total
        assert model.encode(examples(spec)).dtype == torch.float32
    assert seen == [torch.float32]
    assert total.dtype == torch.float32


def test_an_image_is_encoded_alone():
    """No layer of the encoder lets one example see another: discriminators rely on it."""
    x = torch.rand(3, 1, 8, 8).requires_grad_()
    ConvEncoder((1, 8, 8), 1, activation="leaky_relu")(x)[0].sum().backward()
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1:].abs().sum() == 0


# ------------------------------------------------------------------------------------------------------ observations


def test_an_empty_number_says_nothing():
    observation = Observation(TABLE, "gaussian")
    x, output = examples(TABLE), torch.randn(6, 7)
    x[:, 1] = 1
    changed = x.clone()
    changed[:, 0] += 5
    assert torch.equal(observation.nll(output, x), observation.nll(output, changed))
    present = changed.clone()
    present[:, 1] = 0
    x[:, 1] = 0
    assert (observation.nll(output, x) != observation.nll(output, present)).all()


@pytest.mark.parametrize("kind", ["gaussian", "squared_error"])
@pytest.mark.parametrize("drawn", [True, False])
def test_table_rows_are_valid(kind, drawn):
    observation = Observation(TABLE, kind)
    output = torch.randn(200, 7)
    rows = observation.draw(output, Noise(0, 200)) if drawn else observation.mean(output)
    assert ((rows[:, 2:5] == 0) | (rows[:, 2:5] == 1)).all()
    assert (rows[:, 2:5].sum(1) == 1).all()
    for number, flag in ((0, 1), (5, 6)):
        assert set(rows[:, flag].tolist()) == {0.0, 1.0}
        assert (rows[rows[:, flag] == 1, number] == 0).all()
        assert (rows[rows[:, flag] == 0, number] != 0).all()


def test_table_draws_follow_the_softmax():
    observation = Observation(TABLE, "gaussian")
    output = torch.zeros(4000, 7)
    output[:, 2:5] = torch.tensor([0.7, 0.2, 0.1]).log()
    output[:, 1] = math.log(0.25 / 0.75)
    rows = observation.draw(output, Noise(3, 4000))
    torch.testing.assert_close(rows[:, 2:5].mean(0), torch.tensor([0.7, 0.2, 0.1]), atol=0.04, rtol=0)
    assert rows[:, 1].mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("scale", [0.03, 0.3])
def test_mean_of_a_logistic_pixel(scale):
    """The closed form against the sum over the 256 levels, and draws against both."""
    observation = Observation(images((1, 1, 1)), "logistic")
    with torch.no_grad():
        observation.log_scale.fill_(math.log(scale))
        for centre in (-0.6, -0.5, 0.0, 0.45):
            output = torch.full((256, 1, 1, 1), centre)
            levels = torch.arange(256).view(-1, 1, 1, 1) / 255
            expected = ((-observation.nll(output, levels)).exp() * levels.flatten()).sum().item()
            assert observation.mean(output)[0].item() == pytest.approx(expected, abs=2e-3)
            drawn = observation.draw(output[:1].expand(2000, -1, -1, -1), Noise(0, 2000))
            assert drawn.mean().item() == pytest.approx(expected, abs=5 * scale * 1.82 / math.sqrt(2000))
            torch.testing.assert_close(drawn * 255, (drawn * 255).round(), atol=1e-4, rtol=0)


def test_a_constant_feature_does_not_blow_up():
    model = build(VAE, vectors(2))
    with torch.no_grad():
        model.observation.log_scale.fill_(-50)
    assert model.observation.nll(torch.zeros(3, 2), torch.zeros(3, 2)).min() > -2 * 8


@pytest.mark.parametrize(("spec", "kind"), [(vectors(), "bernoulli"), (vectors(), "logistic"), (images(bits=None), "logistic")])
def test_unfitting_observations_are_refused(spec, kind):
    with pytest.raises(UsageError, match="choose"):
        Observation(spec, kind)


# ------------------------------------------------------------------------------------------------------------ models

SPECS = [images(shape) for shape in IMAGES[:5]] + [
    images(bits=1), images(bits=None), vectors(1), vectors(2), vectors(300), TABLE, DataSpec("sequences", (12, 3), size=500),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{'x'.join(map(str, spec.shape))}-{spec.bits}")
@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_every_kind_of_data(cls, spec):
    x = examples(spec, 3)
    architectures = ("dense", "conv") if spec.kind == "images" else ("dense",)
    for architecture in architectures:
        model = build(cls, spec, architecture=architecture)
        loss = model.train().loss(Batch(x))
        loss.total.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        with torch.no_grad():
            model.eval()
            assert model.decode(model.encode(x)).shape == x.shape
            drawn = model.sample(3, noise=Noise(0, 3))
            parts = torch.cat([model.sample(1, noise=Noise(0, 1, first=i)) for i in range(3)])
            torch.testing.assert_close(drawn, parts, atol=1e-5, rtol=1e-5)
            assert drawn.shape == x.shape
            assert drawn.dtype == torch.float32
            assert torch.equal(drawn, model.sample(3, noise=Noise(0, 3)))
            assert not torch.equal(drawn, model.sample(3, noise=Noise(1, 3)))
            assert model.prior().event_shape == model.encode(x).shape[1:]
            if Scores in model.capabilities:
                assert model.log_prob(x, samples=4).nats.isfinite().all()


def test_capabilities():
    assert build(Autoencoder, images()).capabilities == {Samples, Encodes, Decodes}
    assert build(VAE, images()).capabilities == {Samples, Encodes, Decodes, Scores}
    loss_only = build(VAE, images(), likelihood="bernoulli")
    assert Scores not in loss_only.capabilities
    with pytest.raises(UsageError, match="logistic"):
        loss_only.log_prob(examples(images()))


@pytest.mark.parametrize(("spec", "space"), [(images(bits=1), "binary"), (images(), "8-bit"), (vectors(), "density"), (TABLE, "density")])
def test_likelihoods_name_their_space(spec, space):
    likelihood = build(VAE, spec).log_prob(examples(spec), samples=3)
    assert (likelihood.kind, likelihood.space, likelihood.samples) == ("lower bound", space, 3)


@pytest.mark.parametrize("spec", [vectors(), TABLE, DataSpec("sequences", (12, 3))])
@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_convolutions_are_for_images(cls, spec):
    with pytest.raises(UsageError, match="choose dense"):
        build(cls, spec, architecture="conv")


def test_a_dense_autoencoder_needs_a_length():
    with pytest.raises(UsageError, match="latent-dim"):
        Autoencoder.Config(latent_dim=None)


@pytest.mark.parametrize("spec", [images(), images(bits=None), TABLE])
@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_a_step_improves_the_reconstruction(cls, spec):
    model, x = build(cls, spec), examples(spec, 20)

    def error(model):
        torch.manual_seed(0)
        return model.loss(Batch(x)).terms["reconstruction"].item()

    before = error(model.eval())
    after = error(descend(model, x, 15))
    assert after < before


def test_squared_error_falls_below_that_of_the_mean():
    """A code of 4 reconstructs data of 4 dimensions in 10 better than any constant can."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator) @ torch.randn(4, 10, generator=generator)
    model = descend(build(Autoencoder, vectors(10), latent_dim=4), x, 150)
    with torch.no_grad():
        assert (model.decode(model.encode(x)) - x).square().mean() < 0.2 * (x - x.mean(0)).square().mean()


# ------------------------------------------------------------------------------------------------------- autoencoder


def test_the_lecture_autoencoder_keeps_a_spatial_code():
    model = build(Autoencoder, images((1, 28, 28)), latent_dim=None, architecture="conv")
    x = examples(images((1, 28, 28)), 2)
    assert model.encode(x).shape == (2, 1568)
    assert model.codes.covariance.shape == (1568,)
    assert model.train().loss(Batch(x)).total.isfinite()
    assert model.eval().sample(2, noise=Noise(0, 2)).shape == x.shape


@pytest.mark.parametrize("latent_dim", [4, 300])
def test_codes_are_followed(latent_dim):
    """With a network that stands still, the running moments are those of all codes, and so are those of the prior."""
    spec = vectors(5)
    model, x = build(Autoencoder, spec, latent_dim=latent_dim).train(), examples(spec, 400)
    with torch.no_grad():
        for part in x.split(100):
            model.loss(Batch(part))
        model.eval().loss(Batch(x + 100))
        z = model.encode(x)
    torch.testing.assert_close(model.codes.mean, z.mean(0), atol=1e-4, rtol=1e-4)
    covariance = torch.cov(z.T, correction=0)
    expected = covariance if latent_dim <= 256 else covariance.diagonal()
    torch.testing.assert_close(model.codes.covariance, expected, atol=1e-4, rtol=1e-3)
    assert model.prior().log_prob(z).isfinite().all()


def test_samples_follow_the_codes():
    model = build(Autoencoder, vectors(3), latent_dim=2)
    with torch.no_grad():
        model.codes.mean.copy_(torch.tensor([3.0, -1.0]))
        model.codes.covariance.copy_(torch.tensor([[2.0, 1.2], [1.2, 1.0]]))
        model.decoder = torch.nn.Linear(2, 3)
        model.decoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        model.decoder.bias.zero_()
        drawn = model.sample(4000, noise=Noise(0, 4000))[:, :2]
    torch.testing.assert_close(drawn.mean(0), model.codes.mean, atol=0.12, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), model.codes.covariance, atol=0.2, rtol=0)


# --------------------------------------------------------------------------------------------------------------- vae


def linear_gaussian():
    """A VAE whose p(x) is known: x = W z + b + s eps; its encoder guesses too near the prior mean and too wide."""
    model = build(VAE, vectors(4), latent_dim=2, hidden=(), norm=False).eval()
    decoder, encoder, variance = model.decoder.layers[0], model.encoder.layers[0], 0.4
    w, b = decoder.weight.detach(), decoder.bias.detach()
    precision = torch.eye(2) + w.T @ w / variance
    gain = torch.linalg.solve(precision, w.T / variance)
    with torch.no_grad():
        model.observation.log_scale.fill_(0.5 * math.log(variance))
        encoder.weight.copy_(torch.cat((0.6 * gain, torch.zeros(2, 4))))
        encoder.bias.copy_(torch.cat((-0.6 * gain @ b, (2 / precision.diagonal()).log())))
    return model, torch.distributions.MultivariateNormal(b, w @ w.T + variance * torch.eye(4))


def test_the_bound_rises_to_the_exact_likelihood():
    model, exact = linear_gaussian()
    torch.manual_seed(0)
    x = exact.sample((300,))
    truth = exact.log_prob(x).mean().item()
    means = [model.log_prob(x, samples=k).nats.mean().item() for k in (1, 4, 16, 1024)]
    assert means == sorted(means)
    assert means[0] < truth - 0.1
    assert means[-1] == pytest.approx(truth, abs=0.02)
    # The loss is the bound of one sample, up to the noise of the sample.
    model.progress.fill_(1)
    elbo = -torch.stack([model.loss(Batch(x)).total for _ in range(50)]).mean().item()
    assert means[0] == pytest.approx(elbo, abs=0.1)


def test_probabilities_of_all_2x2_images_sum_to_one():
    model = build(VAE, images((1, 2, 2), bits=1), latent_dim=2, hidden=(16,)).eval()
    every = torch.tensor([[(i >> bit) & 1 for bit in range(4)] for i in range(16)]).float().view(16, 1, 2, 2)
    assert model.log_prob(every, samples=2048).nats.exp().sum().item() == pytest.approx(1, abs=0.02)


def test_the_bound_agrees_with_quadrature():
    model = build(VAE, images((1, 3, 3), bits=1), latent_dim=2, hidden=(16,)).eval()
    x = examples(images((1, 3, 3), bits=1), 4)
    axis = torch.linspace(-6, 6, 121)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        output = model.decoder(grid)
        nll = torch.stack([model.observation.nll(output, image.expand(len(grid), -1, -1, -1)) for image in x])
    log_prior = model.prior().log_prob(grid) + 2 * math.log(0.1)
    expected = (log_prior - nll).logsumexp(1)
    torch.testing.assert_close(model.log_prob(x, samples=4096).nats, expected, atol=0.05, rtol=0)


def test_scores_do_not_depend_on_the_company():
    spec = images((1, 8, 8))
    model, x = build(VAE, spec).eval(), examples(spec, 5)
    together = model.log_prob(x, samples=100).nats
    apart = torch.cat([model.log_prob(x[i : i + 1], samples=100).nats for i in range(5)])
    torch.testing.assert_close(together, apart, atol=1e-2, rtol=1e-4)
    torch.rand(1)
    state = torch.get_rng_state()
    assert torch.equal(model.log_prob(x, samples=100).nats, together)
    assert torch.equal(torch.get_rng_state(), state)


def test_beta_lowers_the_divergence():
    spec = vectors(6)
    x = examples(spec, 200)
    divergence = {beta: descend(build(VAE, spec, beta=beta), x, 60).loss(Batch(x)).terms["kl"].item() for beta in (0.1, 1.0, 10.0)}
    assert divergence[10.0] < divergence[1.0] < divergence[0.1]


def test_warm_up_is_a_function_of_progress():
    model = build(VAE, vectors(), beta=4.0, warmup=0.2)
    batch = Batch(examples(vectors()))

    def weight(progress):
        model.progress.fill_(progress)
        return model.loss(batch).weights["kl"]

    assert [weight(progress) for progress in (0, 0.1, 0.2, 1)] == pytest.approx([0, 2, 4, 4])


def test_modes_and_temperature():
    spec = images((1, 4, 4), bits=1)
    model = build(VAE, spec).eval()
    noise = lambda: Noise(0, 5)  # noqa: E731
    mean, draw = model.sample(5, noise=noise()), model.sample(5, noise=noise(), mode="draw")
    assert set(draw.unique().tolist()) == {0.0, 1.0}
    assert not set(mean.unique().tolist()) <= {0.0, 1.0}
    cold = model.sample(5, noise=noise(), temperature=0.0)
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))
    assert model.sample(5, noise=noise(), temperature=2.0).var(0).sum() > mean.var(0).sum()


# --------------------------------------------------------------------------------------------------- conditional vae

LABELLED = vectors(4, label=Classes(("a", "b", "c")))


def revealing():
    """A conditional VAE whose output is its label (the null label included) as a one-hot vector."""
    model = build(VAE, LABELLED, conditional=True, hidden=(), norm=False, latent_dim=2)
    with torch.no_grad():
        model.decoder.layers[0].weight.copy_(torch.cat((torch.zeros(4, 2), torch.eye(4)), 1))
        model.decoder.layers[0].bias.zero_()
    return model


def test_labels_are_counted_in_training_and_drawn_from_the_marginal():
    model = revealing()
    label = torch.tensor([0, 0, 0, 2, -1, -1, -1, -1])
    model.eval().loss(Batch(examples(LABELLED, 8), label))
    assert model.condition.counts.tolist() == [0, 0, 0]
    kept = label.clone()
    model.train().loss(Batch(examples(LABELLED, 8), label))
    assert torch.equal(label, kept)
    assert model.condition.counts.tolist() == [3, 0, 1]
    drawn = model.eval().sample(2000, noise=Noise(0, 2000), mode="mean")
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.75, 0.0, 0.25, 0.0]), atol=0.05, rtol=0)
    named = model.sample(3, noise=Noise(0, 3), label=torch.tensor([2, 1, 0]), mode="mean")
    assert named.argmax(1).tolist() == [2, 1, 0]
    # Rows without a label have the null label, the last.
    assert model.decode(torch.zeros(2, 2)).argmax(1).tolist() == [3, 3]
    assert model.decode(torch.zeros(2, 2), label=torch.tensor([1, -1])).argmax(1).tolist() == [1, 3]


def test_label_errors():
    with pytest.raises(UsageError, match="labels"):
        build(VAE, vectors(), conditional=True)
    with pytest.raises(UsageError, match="without labels"):
        build(VAE, LABELLED).sample(2, noise=Noise(0, 2), label=torch.tensor([0, 1]))
    for label in (torch.tensor([0, 3]), torch.tensor([0, -1]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(UsageError, match="class numbers"):
            revealing().sample(2, noise=Noise(0, 2), label=label)


def test_scoring_without_labels_is_the_mixture_over_classes():
    model = revealing().eval()
    model.condition.counts.copy_(torch.tensor([1, 0, 3]))
    x = examples(LABELLED, 4)
    each = torch.stack([model.log_prob(x, label=torch.full((4,), y)).nats for y in (0, 2)])
    expected = torch.logsumexp(each + torch.tensor([[0.25], [0.75]]).log(), 0)
    torch.testing.assert_close(model.log_prob(x).nats, expected)


def test_a_conditional_vae_learns_its_classes():
    """Labelled rows go to their class; sampling a class gives its mean."""
    label = torch.arange(300) % 3
    x = 3.0 * torch.nn.functional.one_hot(label, 4) + 0.1 * torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    model = descend(build(VAE, LABELLED, conditional=True), x, 200, lr=5e-3, label=label)
    for y in range(3):
        drawn = model.sample(50, noise=Noise(0, 50), label=torch.full((50,), y))
        assert (drawn.argmax(1) == y).float().mean() > 0.8
