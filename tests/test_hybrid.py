"""Promises of the models that join an autoencoder and a discriminator: which way each move goes, and what comes of it."""

import dataclasses

import pytest
import torch

from pofx import core, data, losses
from pofx.core import Attributes, Batch, Classes, DataSpec, Noise, UsageError, Values
from pofx.models.autoencoding.autoencoder import Autoencoder
from pofx.models.autoencoding.factor_vae import FactorVAE, permuted
from pofx.models.hybrid.adversarial_autoencoder import AdversarialAutoencoder
from pofx.models.hybrid.vae_gan import VAEGAN
from pofx.nn.conditioning import naming
from pofx.nn.gaussian import Gaussian
from pofx.settings import Settings
from pofx.trainer import Trainer

IMAGES = DataSpec("images", (1, 8, 8), size=1000, bits=8)
PLANE = DataSpec("vectors", (2,), size=1000)
CLASSES, FLAGS = Classes(("a", "b", "c")), Attributes(("round", "red"))
VALUES = Values(("weight",), mean=(1.0,), std=(2.0,))


def build(cls, spec, **fields):
    torch.manual_seed(0)
    return cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields))


def examples(spec, n=16):
    torch.manual_seed(5)
    return torch.rand(n, *spec.shape) if spec.kind == "images" else torch.randn(n, *spec.shape)


def steps(model, name, batch, *, moves=1, lr=1e-3):
    """So many steps of one player down its own gradient, everybody else frozen, batch and random numbers fixed."""
    player = next(player for player in model.players() if player.name == name)
    owned = [parameter for _, parameter in player.parameters()]
    model.requires_grad_(False)
    for parameter in owned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(owned, lr=lr)
    for _ in range(moves):
        torch.manual_seed(7)
        optimizer.zero_grad()
        player.loss(batch).total.backward()
        optimizer.step()


@torch.no_grad()
def logits(model, batch):
    """Mean D of real and of generated examples, in the eyes of the model as it is now."""
    torch.manual_seed(7)
    fake = model._decoded(model._codes(batch.x, len(batch.x)))
    return float(model.judge(batch.x).mean()), float(model.judge(fake).mean())


def costs(model, batch):
    """The terms of the encoder's loss."""
    torch.manual_seed(7)
    return {name: float(term.detach()) for name, term in model.encoder_loss(batch).terms.items()}


# ------------------------------------------------------------------------------------------------ vae_gan: directions


@pytest.mark.parametrize("spec", [IMAGES, PLANE], ids=["images", "plane"])
def test_one_move_of_the_decoder_raises_the_logit_of_fakes(spec):
    model, batch = build(VAEGAN, spec, feature_weight=0.0, pixel_weight=0.0), Batch(examples(spec))
    before = logits(model, batch)
    steps(model, "decoder", batch)
    after = logits(model, batch)
    assert after[1] > before[1]
    assert after[0] == before[0]


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_every_loss_parts_real_from_fake_and_brings_them_together(name, relativistic):
    fields = {"loss": name, "relativistic": relativistic, "feature_weight": 0.0, "pixel_weight": 0.0, "gamma": 0.0}
    model, batch = build(VAEGAN, PLANE, **fields), Batch(examples(PLANE))
    before = logits(model, batch)
    steps(model, "discriminator", batch, lr=1e-2)
    apart = logits(model, batch)
    assert apart[0] - apart[1] > before[0] - before[1]
    steps(model, "decoder", batch, lr=1e-2)
    after = logits(model, batch)
    assert after[0] == apart[0]
    assert after[1] > apart[1]


def test_penalties_of_the_game_are_settings():
    fields = {"gamma": 0.1, "gamma_fake": 0.2, "wgan_gp": 10.0, "dragan": 5.0}
    loss = build(VAEGAN, IMAGES, **fields).discriminator_loss(Batch(examples(IMAGES)))
    assert dict(loss.weights) == {"penalty": 0.1, "fake_penalty": 0.2, "wgan_gp": 10.0, "dragan": 5.0}
    assert all(torch.isfinite(term) for term in loss.terms.values())
    assert set(build(VAEGAN, IMAGES).discriminator_loss(Batch(examples(IMAGES))).terms) == {"real", "fake", "penalty"}


@pytest.mark.parametrize("spec", [IMAGES, PLANE], ids=["images", "plane"])
def test_one_move_of_the_discriminator_parts_real_from_fake(spec):
    model, batch = build(VAEGAN, spec, gamma=0.0), Batch(examples(spec))
    before = logits(model, batch)
    steps(model, "discriminator", batch)
    after = logits(model, batch)
    assert after[0] - after[1] > before[0] - before[1]


@pytest.mark.parametrize(
    ("falls", "weights"),
    [
        ("kl", {"beta": 1.0, "feature_weight": 0.0, "pixel_weight": 0.0}),
        ("features", {"beta": 0.0, "feature_weight": 1.0, "pixel_weight": 0.0}),
        ("reconstruction", {"beta": 0.0, "feature_weight": 0.0, "pixel_weight": 1.0}),
    ],
)
@pytest.mark.parametrize("spec", [IMAGES, PLANE], ids=["images", "plane"])
def test_one_move_of_the_encoder_lowers_what_it_pays_for(spec, falls, weights):
    model, batch = build(VAEGAN, spec, **weights), Batch(examples(spec))
    before = costs(model, batch)[falls]
    steps(model, "encoder", batch)
    assert costs(model, batch)[falls] < before


def test_the_encoder_never_feels_the_adversary():
    # The discriminator's last layer is what turns features into a verdict: the encoder's gradient does not know it.
    gradients = []
    for scale in (1.0, -100.0):
        model, batch = build(VAEGAN, IMAGES), Batch(examples(IMAGES))
        model.head.layers[-1].weight.data.mul_(scale)
        torch.manual_seed(7)
        model.encoder_loss(batch).total.backward()
        assert all(parameter.grad is None for parameter in model.head.parameters())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.encoder.parameters()]))
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


# ------------------------------------------------------------------------------------------------- vae_gan: auxiliary


def test_a_head_is_the_encoders_and_only_classes_are_a_capability():
    plain = build(VAEGAN, dataclasses.replace(IMAGES, label=CLASSES))
    named = build(VAEGAN, dataclasses.replace(IMAGES, label=CLASSES), auxiliary=1.0)
    flagged = build(VAEGAN, dataclasses.replace(IMAGES, label=FLAGS), auxiliary=1.0)
    assert core.Classifies in named.capabilities
    assert core.Classifies not in plain.capabilities | flagged.capabilities
    assert named.classify(examples(IMAGES, 5)).shape == (5, 3)
    for model in (plain, flagged):
        with pytest.raises(UsageError, match=r"--model\.auxiliary 1"):
            model.classify(examples(IMAGES, 5))
    head = set(map(id, named.label_head.parameters()))
    assert [player.name for player in named.players() if head & {id(p) for _, p in player.parameters()}] == ["encoder"]


def test_a_head_needs_labels():
    with pytest.raises(UsageError, match=r"--data\.label"):
        build(VAEGAN, dataclasses.replace(IMAGES, label=None), auxiliary=1.0)


def label_gradient(model, batch):
    """The gradient of the term `label` alone, over the encoder's player, and its value."""
    model.zero_grad()
    torch.manual_seed(7)
    term = model.encoder_loss(batch).terms["label"]
    term.backward()
    parts = [p.grad.flatten() for net in (model.encoder, model.label_head) for p in net.parameters()]
    return term.item(), torch.cat(parts)


@pytest.mark.parametrize(
    ("label", "some", "fewer"),
    [
        (VALUES, torch.tensor([[0.5], [-2.0], [1.0], [torch.nan]]), torch.tensor([[0.5], [torch.nan], [torch.nan], [torch.nan]])),
        (CLASSES, torch.tensor([0, 2, 1, -1]), torch.tensor([0, -1, -1, -1])),
        (FLAGS, torch.tensor([[0, 1], [1, -1], [-1, -1], [1, 1]]), torch.tensor([[0, 1], [-1, -1], [-1, -1], [-1, -1]])),
    ],
    ids=["values", "classes", "attributes"],
)
def test_missing_labels_give_no_gradient(label, some, fewer):
    spec = dataclasses.replace(IMAGES, label=label)
    # The dense encoder: batches of other sizes are then summed in the same way.
    model, x = build(VAEGAN, spec, auxiliary=1.0, architecture="dense"), examples(spec, 4)
    value, gradient = label_gradient(model, Batch(x, torch.full_like(some, torch.nan if some.is_floating_point() else -1)))
    assert value == 0
    assert gradient.abs().sum() == 0
    assert label_gradient(model, Batch(x, None))[0] == 0
    # Only the first row is labelled: the other pictures may be any, and the mean is over that one row.
    value, gradient = label_gradient(model, Batch(x, fewer))
    other_value, other = label_gradient(model, Batch(torch.cat((x[:1], torch.rand(3, *spec.shape))), fewer))
    torch.testing.assert_close(gradient, other)
    assert value == pytest.approx(other_value, rel=1e-5)
    assert not torch.allclose(gradient, label_gradient(model, Batch(x, some))[1])


def test_a_missing_attribute_says_nothing_about_its_neighbours():
    spec = dataclasses.replace(IMAGES, label=FLAGS)
    model = build(VAEGAN, spec, auxiliary=1.0)
    _, gradient = label_gradient(model, Batch(examples(spec, 4), torch.tensor([[0, -1], [1, -1], [1, -1], [0, -1]])))
    head = model.label_head.layers[-1].weight.grad
    assert head[0].abs().sum() > 0
    assert head[1].abs().sum() == 0
    assert gradient.isfinite().all()


def test_the_label_term_is_the_mean_cross_entropy_of_the_labelled_rows():
    given = torch.randn(5, 3)
    nats, accuracy = naming(CLASSES, given, torch.tensor([2, -1, 0, -1, 1]))
    chosen = given[[0, 2, 4]]
    expected = -chosen.log_softmax(1)[range(3), [2, 0, 1]].mean()
    assert nats.item() == pytest.approx(expected.item(), rel=1e-5)
    assert accuracy.item() == pytest.approx((chosen.argmax(1) == torch.tensor([2, 0, 1])).float().mean().item())
    nats, _ = naming(FLAGS, given[:, :2], torch.tensor([[1, 0], [-1, -1], [-1, 1], [-1, -1], [-1, -1]]))
    coins = [given[0, 0].sigmoid(), 1 - given[0, 1].sigmoid(), given[2, 1].sigmoid()]
    assert nats.item() == pytest.approx(float(-torch.stack(coins).log().sum() / 2), rel=1e-5)
    # Values are compared by their standard scores: -2 is one and a half deviations below the mean of 1.
    nats, explained = naming(VALUES, torch.tensor([[0.5], [0.0]]), torch.tensor([[-2.0], [torch.nan]]))
    assert nats.item() == pytest.approx(0.5 * (0.5 + 1.5) ** 2)
    assert explained.item() == pytest.approx(1 - (0.5 + 1.5) ** 2)


def test_few_labels_teach_the_encoder_to_name_classes():
    dataset = data.load("digits", data.Options(labelled=300))
    model, held = trained(VAEGAN, dataset, steps=150, architecture="dense", hidden=(128,), auxiliary=1.0, beta=0.02), dataset.test
    batch = held.batch(torch.arange(len(held)))
    assert (model.classify(batch.x).argmax(1) == batch.label).float().mean() > 0.7


# ------------------------------------------------------------------------------------------------- codes of all of them


class Fixed(core.CodePrior):
    """A prior that has one code."""

    def __init__(self, code):
        self.code = code

    def draw(self, noise, *, temperature=1.0):
        return self.code.expand(noise.n, -1)


@pytest.mark.parametrize("cls", [VAEGAN, AdversarialAutoencoder, FactorVAE])
def test_samples_come_from_a_fitted_prior_where_there_is_one(cls):
    model = build(cls, IMAGES).eval()
    model.fitted = Fixed(torch.full_like(model.prior().mean, 0.5)[None])
    x = model.sample(3, noise=Noise(0, 3))
    torch.testing.assert_close(x, model.decode(model.fitted.code).expand_as(x))


@pytest.mark.parametrize("cls", [VAEGAN, FactorVAE])
@torch.no_grad()
def test_collapsed_codes_are_a_symptom(cls):
    model, batch = build(cls, IMAGES).eval(), Batch(examples(IMAGES, 64))
    model.progress.fill_(1.0)
    last = list(model.encoder.parameters())[-2:]
    last[0].data.zero_()
    assert "collapsed codes" in model.symptoms(batch)
    last[0].data.normal_()
    assert model.symptoms(batch) == {}
    assert model.encode(batch.x).square().mean() > 1


# -------------------------------------------------------------------------------------------- adversarial autoencoder


def gradients(loss, *networks):
    loss.total.backward()
    return [all(p.grad is None or not p.grad.abs().sum() for p in network.parameters()) for network in networks]


@pytest.mark.parametrize("spec", [IMAGES, PLANE], ids=["images", "plane"])
def test_the_discriminator_of_codes_parts_prior_from_data_and_the_encoder_undoes_it(spec):
    model, batch = build(AdversarialAutoencoder, spec, adversarial_weight=1e3, gamma=0.0), Batch(examples(spec))
    z = model.prior().sample((64,))

    @torch.no_grad()
    def gap():
        return float(model._logit(z).mean() - model._logit(model.encode(batch.x)).mean())

    before = gap()
    steps(model, "discriminator", batch, moves=10, lr=1e-2)
    between = gap()
    assert between > before
    steps(model, "autoencoder", batch, moves=10, lr=1e-5)
    assert gap() < between


def test_no_gradient_of_codes_reaches_the_other_side():
    model, batch = build(AdversarialAutoencoder, IMAGES), Batch(examples(IMAGES))
    # Nobody frozen: even then a discriminator's move says nothing to the encoder.
    assert gradients(model.discriminator_loss(batch), model.encoder, model.decoder, model.discriminator) == [True, True, False]


def gaussian_nats(z):
    """KL of the Gaussian with the codes' mean and covariance from N(0, I)."""
    covariance = torch.cov(z.T) + 1e-6 * torch.eye(z.shape[1])
    return 0.5 * float(z.mean(0).square().sum() + covariance.trace() - z.shape[1] - torch.logdet(covariance))


@torch.no_grad()
def test_codes_of_an_adversarial_autoencoder_come_nearer_to_the_prior_than_an_autoencoders():
    dataset = data.load("digits", data.Options(validation=0.0))
    x = dataset.train.batch(torch.arange(1500)).x
    nats, errors = [], []
    for cls in (Autoencoder, AdversarialAutoencoder):
        model = trained(cls, dataset, steps=300, latent_dim=8, hidden=(128,))
        z = model.encode(x)
        nats.append(gaussian_nats(z))
        errors.append(float(losses.squared_error(model.decode(z), x).mean()))
    assert nats[1] < 0.5 * nats[0]
    # And they still say what the picture was.
    assert errors[1] < 0.7 * float(losses.squared_error(x.mean(0).expand_as(x), x).mean())


def trained(cls, dataset, *, steps, **fields):
    """A model after a short training in memory."""
    config = dataclasses.replace(cls.recipe(dataset.spec, None).config, **fields)
    torch.manual_seed(0)
    model = cls(dataset.spec, config)
    with torch.enable_grad():
        Trainer(model, dataset, Settings(steps=steps, batch_size=64, ema=0.9)).train()
    return model.eval()


@torch.no_grad()
def test_codes_off_the_prior_are_a_symptom():
    model, batch = build(AdversarialAutoencoder, PLANE).eval(), Batch(examples(PLANE, 256))
    last = model.encoder.layers[-1]
    z = model.encode(batch.x)
    last.weight.data.div_(z.std())
    last.bias.data.copy_((last.bias - z.mean()) / z.std())
    model.progress.fill_(1.0)
    assert model.symptoms(batch) == {}
    last.bias.data.add_(5)
    assert "adversarial-weight" in model.symptoms(batch)["codes off the prior"]


# -------------------------------------------------------------------------------------------------------- factor_vae


def test_permuting_codes_keeps_the_marginals_and_unties_the_dimensions():
    torch.manual_seed(0)
    z = torch.randn(5000, 1) + 0.1 * torch.randn(5000, 3)
    mixed = permuted(z)
    assert torch.equal(mixed.sort(0).values, z.sort(0).values)
    off = ~torch.eye(3, dtype=torch.bool)
    assert (torch.corrcoef(z.T)[off] > 0.98).all()
    assert (torch.corrcoef(mixed.T)[off].abs() < 0.06).all()


class Given(FactorVAE):
    """Its codes are the data."""

    def posterior(self, x):
        return Gaussian(x, torch.full_like(x, -10.0))


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_density_ratio_gives_the_total_correlation_of_a_gaussian(correlation):
    model = build(Given, PLANE, discriminator_hidden=(64, 64), warmup=0.0)
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 400)
    root = torch.linalg.cholesky(torch.tensor([[1.0, correlation], [correlation, 1.0]]))
    torch.manual_seed(1)
    for _ in range(400):
        optimizer.zero_grad()
        model.discriminator_loss(Batch(torch.randn(512, 2) @ root.T)).total.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = model.vae_loss(Batch(torch.randn(20_000, 2) @ root.T)).terms["total_correlation"].item()
    # TC of a Gaussian with unit variances: -1/2 log det of the correlations.
    exact = -0.5 * float(torch.logdet(root @ root.T))
    assert found == pytest.approx(exact, abs=0.06)


def test_the_vae_lowers_the_total_correlation_that_a_discriminator_sees():
    model, batch = build(FactorVAE, IMAGES, gamma=1e3, warmup=0.0), Batch(examples(IMAGES, 64))
    steps(model, "discriminator", batch, moves=20, lr=1e-2)

    def seen():
        torch.manual_seed(7)
        return model.vae_loss(batch).terms["total_correlation"].item()

    before = seen()
    steps(model, "vae", batch, moves=5, lr=1e-6)
    assert seen() < before


def test_a_move_of_the_discriminator_raises_joint_over_permuted():
    model, batch = build(FactorVAE, IMAGES), Batch(examples(IMAGES, 64))

    def lost():
        torch.manual_seed(7)
        return model.discriminator_loss(batch).total.item()

    before = lost()
    steps(model, "discriminator", batch, lr=1e-2)
    assert lost() < before
    assert gradients(model.discriminator_loss(batch), model.encoder, model.decoder) == [True, True]


@torch.no_grad()
def test_validation_is_the_bound_without_the_total_correlation():
    light, heavy = (build(FactorVAE, IMAGES, gamma=gamma).eval() for gamma in (0.0, 100.0))
    batch = Batch(examples(IMAGES))
    scores = []
    for model in (light, heavy):
        torch.manual_seed(7)
        scores.append(float(model.validate(batch)))
    assert scores[0] == scores[1]
