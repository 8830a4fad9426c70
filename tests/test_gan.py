"""The switches of the GAN: any loss with any penalty on any network; what it does to a game that theory solves."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from pofx import core, losses, optim
from pofx.core import Batch, Classes, DataSpec, Noise, UsageError
from pofx.models.adversarial.gan import GAN
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss
from pofx.nn.minibatch import MinibatchStd
from pofx.nn.relaxation import RAIL, squashed

IMAGES = DataSpec("images", (1, 8, 8), size=1000, bits=8)
PLANE = DataSpec("vectors", (2,), size=1000)
PENALTIES = {"none": {}, "R1": {"gamma": 0.3}, "R2": {"gamma_fake": 0.3}, "WGAN-GP": {"wgan_gp": 10.0}, "DRAGAN": {"dragan": 10.0}}
NETWORKS = {
    "vectors": (PLANE, {}),
    "dense, normalised, in groups": (IMAGES, {"architecture": "dense", "spectral_norm": True, "minibatch_std": 3}),
    "conv": (IMAGES, {"architecture": "conv"}),
    "conv, all": (IMAGES, {"architecture": "conv", "spectral_norm": True, "minibatch_std": 4, "attention": True}),
    "residual, all": (IMAGES, {"architecture": "residual", "spectral_norm": True, "minibatch_std": 4, "attention": True}),
}
N = 8


def build(spec, **fields):
    torch.manual_seed(0)
    return GAN(spec, GAN.Config(**{"latent_dim": 4, "hidden": (16, 16), "channels": 8, "gamma": 0.0, **fields})).train()


def examples(spec, n=N):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(n, *spec.shape, generator=generator) if spec.kind == "images" else torch.randn(n, *spec.shape, generator=generator)


def step(model, player, optimizers, batch, seed):
    """One move, with everybody else frozen."""
    model.requires_grad_(False)
    owned = [parameter for _, parameter in player.parameters()]
    for parameter in owned:
        parameter.requires_grad_(True)
        parameter.grad = None
    torch.manual_seed(seed)
    loss = player.loss(batch)
    loss.total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in owned)
    for optimizer in optimizers:
        optimizer.step()
    return loss


def memory(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_any_loss_with_any_penalty_on_any_network(name, network):
    spec, fields = NETWORKS[network]
    batch = Batch(examples(spec))
    for relativistic, (penalty, weights) in itertools.product((False, True), PENALTIES.items()):
        model = build(spec, loss=name, relativistic=relativistic, **fields, **weights)
        players = model.players()
        optimizers = [optim.build(player) for player in players]
        frozen = {"discriminator": model.generator, "generator": model.discriminator}
        for number in range(2):
            for player, optimizer in zip(players, optimizers, strict=True):
                before = memory(frozen[player.name])
                loss = step(model, player, optimizer, batch, number)
                assert loss.total.isfinite(), (relativistic, penalty)
                # Neither a weight nor a buffer of a frozen player has moved.
                after = frozen[player.name].state_dict()
                assert all(torch.equal(value, after[key]) for key, value in before.items()), (relativistic, penalty)
        terms = discriminator_terms(relativistic, penalty)
        assert set(players[0].loss(batch).terms) == terms, (relativistic, penalty)
        with torch.no_grad():
            x = model.eval().sample(2, noise=Noise(0, 2))
        assert x.isfinite().all()


def discriminator_terms(relativistic, penalty):
    names = {"R1": "penalty", "R2": "fake_penalty", "WGAN-GP": "wgan_gp", "DRAGAN": "dragan"}
    return ({"paired"} if relativistic else {"real", "fake"}) | ({names[penalty]} if penalty in names else set())


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_moves_part_real_from_fake_and_bring_them_together(name, relativistic):
    """By small steps of plain descent on one batch: the discriminator's widens D(x) - D(G(z)), the generator's raises D(G(z))."""
    model = build(PLANE, loss=name, relativistic=relativistic)
    batch = Batch(examples(PLANE, 32))
    discriminator, generator = model.players()

    def moved(player):
        descent = [torch.optim.SGD([parameter for _, parameter in player.parameters()], lr=1e-2)]
        return [step(model, player, descent, batch, seed=3).metrics for _ in range(10)]

    metrics = moved(discriminator)
    gaps = [(found["real_logit"] - found["fake_logit"]).item() for found in metrics]
    assert gaps[-1] > gaps[0]
    logits = [found["fake_logit"].item() for found in moved(generator)]
    assert logits[-1] > logits[0]


def test_penalties_are_of_the_examples_that_they_name():
    model = build(PLANE, gamma=1.0, gamma_fake=1.0)
    batch = Batch(examples(PLANE))
    torch.manual_seed(1)
    terms = model.discriminator_loss(batch).terms
    torch.manual_seed(1)
    fake = model._fake(N, None).detach()
    torch.testing.assert_close(terms["penalty"], losses.zero_centred_penalty(model.judge, batch.x))
    torch.testing.assert_close(terms["fake_penalty"], losses.zero_centred_penalty(model.judge, fake))


# ------------------------------------------------------------------------------------------------------- the Dirac-GAN


class Dirac(nn.Module):
    """One number: a generator of the one example `weight`, or a discriminator with the logit `weight` x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x):
        return self.weight * x[:, 0]


def play(rules, *, alternating, moves=200, rate=0.1, at=(1.0, 0.0)):
    """Distances from the equilibrium (0, 0) over a game for data that all are 0.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), section 2,
        https://arxiv.org/abs/1801.04406
    """
    generator, discriminator = Dirac(at[0]), Dirac(at[1])
    real, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    radii = [math.hypot(*at)]
    for _ in range(moves):
        judge = discriminator_loss(discriminator, real, (generator.weight * one).detach(), rules).total
        (slope,) = torch.autograd.grad(judge, discriminator.weight)
        if alternating:
            discriminator.weight.data -= rate * slope
        made, _ = generator_loss(discriminator, real, generator.weight * one, rules)
        (other,) = torch.autograd.grad(made, generator.weight)
        if not alternating:
            discriminator.weight.data -= rate * slope
        generator.weight.data -= rate * other
        radii.append(math.hypot(generator.weight.item(), discriminator.weight.item()))
    return radii


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(("name", "relativistic"), [("minimax", False), ("minimax", True), ("wasserstein", False)])
def test_the_dirac_game_of_one_sum_orbits_without_a_penalty(name, relativistic, alternating):
    moves = 140 if name == "minimax" else 70
    orbit = play(Rules(name, relativistic), alternating=alternating, moves=moves)
    # More than one turn: at the equilibrium a round is a turn by the rate times the slope of the loss, 1/2 or 1.
    assert moves * 0.1 * (0.5 if name == "minimax" else 1) > 2 * math.pi
    if alternating:
        # It turns for ever at about the distance where it began.
        assert 0.9 < min(orbit) <= max(orbit) < 1.1
        assert max(orbit[-moves // 3 :]) > 0.95
    else:
        # Simultaneous steps even lead away.
        assert orbit[-1] > 1.02


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(
    ("name", "relativistic"), [("minimax", False), ("wasserstein", False), ("non_saturating", False), ("non_saturating", True)]
)
def test_the_dirac_game_converges_with_r1(name, relativistic, alternating):
    free, damped = (play(Rules(name, relativistic, gamma=gamma), alternating=alternating) for gamma in (0.0, 1.0))
    assert damped[-1] < 0.01
    # The non-saturating game shrinks by itself, but no faster than a power of time.
    assert free[-1] > 0.3


def test_simultaneous_play_of_the_bilinear_game_grows_as_theory_says():
    # w' = w + h t, t' = t - h w: each step multiplies the radius by sqrt(1 + h^2).
    radii = play(Rules("wasserstein"), alternating=False, moves=50, rate=0.1)
    assert radii[-1] == pytest.approx((1 + 0.1**2) ** 25, rel=1e-9)


# -------------------------------------------------------------------------------------------- networks and their memory


def test_penalties_fade_with_progress():
    model = build(PLANE, gamma=0.4, gamma_fake=0.2, gamma_final=0.01, wgan_gp=10.0)
    for progress, left in ((0.0, 1.0), (0.5, 0.1), (1.0, 0.01)):
        model.progress.fill_(progress)
        weights = model.discriminator_loss(Batch(examples(PLANE))).weights
        assert weights == pytest.approx({"penalty": 0.4 * left, "fake_penalty": 0.2 * left, "wgan_gp": 10.0})


@pytest.mark.parametrize("architecture", ["conv", "residual"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (3, 7, 5), (1, 28, 28), (3, 32, 32), (1, 112, 92), (4, 16, 16)])
def test_images_of_any_size(architecture, shape):
    spec = DataSpec("images", shape, size=100, bits=8)
    model = build(spec, architecture=architecture, attention=True, minibatch_std=2, spectral_norm=True)
    loss = model.discriminator_loss(Batch(examples(spec, 2)))
    assert loss.total.isfinite()
    assert model.eval().sample(2, noise=Noise(0, 2)).shape == (2, *shape)


@pytest.mark.parametrize("units", [0, 16])
def test_a_dense_layer_sees_how_the_places_of_an_image_fit_together(units):
    model = build(DataSpec("images", (1, 28, 28), size=100, bits=8), architecture="conv", dense_units=units).double().eval()
    x, left, right = torch.rand(3, 4, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left[..., 8:], right[..., :20] = 0, 0
    with torch.no_grad():
        # What both changes do together beside the sum of what each does.
        together = model.judge(x + left + right) - model.judge(x + left) - model.judge(x + right) + model.judge(x)
        alone = model.judge(x + left) - model.judge(x)
    assert alone.abs().min() > 1e-4
    assert bool((together.abs() > 1e-3 * alone.abs()).all()) == (units > 0)
    assert units > 0 or together.abs().max() < 1e-12


def test_pixels_that_are_black_or_white_can_come_back():
    logits = torch.tensor([-300.0, -8.0, -6.0, 0.0, 6.0, 8.0, 300.0], dtype=torch.float64, requires_grad=True)
    x = squashed(logits)
    assert torch.allclose(x, logits.sigmoid(), atol=1e-3)
    assert torch.equal((255 * x).round(), (255 * logits.sigmoid()).round())
    for direction in (-1.0, 1.0):
        (gradient,) = torch.autograd.grad(direction * x.sum(), logits, retain_graph=True)
        # A step goes against the gradient: blocked where it leads out.
        led_out = -direction * logits.detach() > RAIL
        assert torch.equal(gradient == 0, led_out)
    inside = torch.linspace(-6, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squashed, inside)
    assert torch.autograd.gradgradcheck(squashed, inside)


def singular(network):
    return [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def test_spectral_normalisation_holds_slopes_down_and_rests_in_evaluation():
    model = build(IMAGES, architecture="conv", spectral_norm=True)
    batch = Batch(examples(IMAGES))
    for _ in range(30):
        model.discriminator_loss(batch)
    with torch.no_grad():
        for norm in singular(model.eval().discriminator):
            assert norm == pytest.approx(1, abs=0.05)
    before = memory(model)
    with torch.no_grad():
        model.judge(batch.x)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    # However large the weights that are learned, those that judge are not.
    for parameter in model.discriminator.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(100)
    assert all(norm == pytest.approx(1, abs=0.05) for norm in singular(model.discriminator))
    # Only in a move of its own does it go on.
    model.train()
    model.generator_loss(batch)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items() if key.endswith(("_u", "_v")))
    model.discriminator_loss(batch)
    assert not all(torch.equal(value, model.state_dict()[key]) for key, value in before.items() if key.endswith("_u"))


def test_bfloat16_networks_with_all_switches_give_float32_losses():
    model = build(IMAGES, architecture="residual", spectral_norm=True, minibatch_std=4, attention=True, gamma=0.3, gamma_fake=0.3)
    with core.precision(torch.bfloat16):
        for player in model.players():
            loss = player.loss(Batch(examples(IMAGES)))
            loss.total.backward()
            assert all(term.dtype == torch.float32 and term.isfinite() for term in loss.terms.values())
    assert all(value.dtype == torch.float32 for value in model.discriminator.state_dict().values())


def test_minibatch_std_is_that_of_its_group_and_usual_in_evaluation():
    layer = MinibatchStd(4).train()
    x = torch.randn(8, 3, 5, 5)
    out = layer(x)
    assert out.shape == (8, 4, 5, 5)
    assert torch.equal(out[:, :3], x)
    expected = [x[group::2].std(0, correction=0).mean().item() for group in (0, 1)]
    for i in range(8):
        assert out[i, 3].unique().item() == pytest.approx(expected[i % 2], rel=1e-4)
    # Six examples are two groups of three; one is alone.
    assert layer(x[:6, :, 0, 0])[0, 3].item() == pytest.approx(x[:6:2, :, 0, 0].std(0, correction=0).mean().item(), rel=1e-4)
    assert layer(x[:1]).isfinite().all()
    for _ in range(400):
        layer(x)
    layer.eval()
    torch.testing.assert_close(layer(x)[:, 3], torch.full((8, 5, 5), sum(expected) / 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(layer(x)[:2], layer(x[:2]))


def test_minibatch_std_finds_out_a_generator_that_repeats_itself():
    layer = MinibatchStd(4).train()
    same = torch.randn(1, 3).expand(4, 3)
    assert layer(same)[0, 3] < 1e-3 < layer(torch.randn(4, 3))[0, 3]


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        (PLANE, {"architecture": "residual"}, "choose dense"),
        (PLANE, {"attention": True}, "leave it out, since these data are vectors"),
        (DataSpec("images", (1, 8, 8)), {"attention": True}, "choose the architecture conv or residual"),
        (PLANE, {"minibatch_std": 4, "hidden": ()}, "give hidden at least one"),
        (PLANE, {"minibatch_std": 1}, "at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(spec, fields, message):
    with pytest.raises(UsageError, match=message):
        build(spec, **fields)


def test_conditional_with_all_switches():
    spec = dataclasses.replace(IMAGES, label=Classes(("a", "b")))
    model = build(spec, conditional=True, architecture="residual", spectral_norm=True, minibatch_std=4, relativistic=True, gamma=0.1)
    batch = Batch(examples(spec), torch.arange(N) % 2)
    for player in model.players():
        assert player.loss(batch).total.isfinite()
    label = torch.tensor([0, 1])
    assert model.eval().sample(2, noise=Noise(0, 2), label=label).shape == (2, 1, 8, 8)
