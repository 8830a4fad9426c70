"""What a discriminator sees: changes that keep what they must, a strength that is a frequency, and one that follows the game."""

import dataclasses

import pytest
import torch
from refusals import refused

import pofx
from pofx import data, discovery, figures
from pofx.core import Batch, DataSpec, UsageError
from pofx.models.adversarial.gan import GAN
from pofx.nn import augmentation as nn_augmentation
from pofx.nn.adversarial import Rules, discriminator_loss, generator_loss
from pofx.nn.augmentation import CHANGES, IMAGES, MOST, TARGET, Augmentation, flip, shift
from pofx.run import Run

IMAGES_SPEC = DataSpec("images", (2, 12, 9), size=100, bits=8)


def augmentation(changes=tuple(CHANGES), strength=1.0):
    return Augmentation(IMAGES_SPEC, changes, strength).train()


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_keeps_the_shape_and_passes_gradients_twice(name):
    torch.manual_seed(0)
    x = torch.rand(6, 2, 12, 9, dtype=torch.float64, requires_grad=True)
    changed = CHANGES[name](x)
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)
    (slope,) = torch.autograd.grad(changed.square().sum(), x, create_graph=True)
    assert slope.abs().sum() > 0
    slope.square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_flip_undoes_itself_and_a_shift_moves_what_there_is():
    torch.manual_seed(0)
    x = torch.rand(20, 2, 12, 9)
    assert torch.equal(flip(flip(x)), x)
    moved = shift(x)
    offsets = set()
    for one, other in zip(x, moved, strict=True):
        # The middle of the image is found again, whole, some places away, in both channels.
        found = [
            (dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            if torch.equal(other[:, 2:10, 2:7], one[:, 2 + dy : 10 + dy, 2 + dx : 7 + dx])
        ]  # fmt: skip
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 3
    for tiny in (torch.rand(3, 1, 2, 2), torch.rand(3, 1, 3, 4)):
        assert shift(tiny).shape == tiny.shape


def test_strength_is_a_frequency_and_evaluation_changes_nothing():
    torch.manual_seed(0)
    x = torch.rand(4000, 2, 4, 4)
    for strength in (0.0, 0.3, 1.0):
        one = augmentation(("flip",), strength)
        changed = (one(x) != x).flatten(1).any(1).float().mean()
        assert changed.item() == pytest.approx(strength, abs=0.03)
        assert torch.equal(one.eval()(x), x)


def test_an_adaptive_strength_follows_what_is_known():
    one = augmentation(strength=None)
    assert float(one.strength) == 0
    for _ in range(200):
        one.adapt(torch.ones(64))
    risen = float(one.strength)
    assert 0.5 * 200 * 64 / IMAGES < risen < 200 * 64 / IMAGES
    for _ in range(100_000 // 64):
        one.adapt(torch.ones(640))
    assert float(one.strength) == pytest.approx(MOST)
    for _ in range(100):
        one.adapt(torch.cat((torch.ones(32), -torch.ones(32))))
    assert float(one.strength) < MOST
    assert float(one.known) < TARGET
    fixed = augmentation(strength=0.5)
    fixed.adapt(torch.ones(64))
    assert float(fixed.strength) == 0.5
    resting = augmentation(strength=None).eval()
    resting.adapt(torch.ones(64))
    assert float(resting.strength) == 0


def test_both_kinds_are_changed_before_they_are_judged():
    seen = []

    def logit(x):
        seen.append(x)
        return x.flatten(1).mean(1)

    x, fake = torch.rand(8, 2, 12, 9), torch.rand(8, 2, 12, 9, requires_grad=True)
    one = augmentation(("flip",), 1.0)
    loss = discriminator_loss(logit, x, fake, Rules(gamma=1.0), augmentation=one)
    assert {"real", "fake", "penalty"} == set(loss.terms)
    assert float(loss.metrics["augmentation"]) == 1.0
    torch.testing.assert_close(seen[0], x.flip(3))
    torch.testing.assert_close(seen[1], fake.flip(3))
    paid, _ = generator_loss(logit, x, fake, Rules(), augmentation=one)
    paid.backward()
    torch.testing.assert_close(seen[2], fake.flip(3))
    assert fake.grad.abs().sum() > 0


@pytest.mark.parametrize("rules", [Rules(relativistic=True), Rules(loss="wasserstein")])
@pytest.mark.parametrize("constant", [-5, 5])
def test_an_adaptive_game_of_differences_takes_in_differences(rules, constant):
    x = torch.zeros(8, 2, 12, 9)
    for sign in (1, -1):
        one = augmentation(strength=None)
        discriminator_loss(lambda x: x.flatten(1).mean(1) + constant, x + sign, x, rules, augmentation=one)
        assert float(one.known) * sign > 0


def test_an_adaptive_game_of_logits_takes_in_those_of_real_examples():
    x = torch.zeros(8, 2, 12, 9)
    other = augmentation(strength=None)
    discriminator_loss(lambda x: x.flatten(1).mean(1) - 5, x + 1, x, Rules(), augmentation=other)
    assert float(other.known) < 0


@pytest.mark.parametrize("name", ["gan", "infogan", "progressive_gan", "style_gan", "vae_gan"])
def test_every_game_of_images_can_be_augmented(name):
    cls, spec = discovery.model(name), DataSpec("images", (1, 8, 8), size=300, bits=8)
    torch.manual_seed(0)
    model = cls(spec, dataclasses.replace(cls.recipe(spec, None).config, augment=("shift", "cutout"))).train()
    x = torch.rand(8, 1, 8, 8)
    for player in model.players():
        loss = player.loss(Batch(x))
        assert torch.isfinite(loss.total)
        assert ("augmentation" in loss.metrics) == (player.name == "discriminator")
    before = model.eval().judge(x)
    assert torch.equal(model.judge(x), before)


@pytest.mark.parametrize("name", ["gan", "infogan", "progressive_gan", "style_gan", "vae_gan"])
def test_every_player_that_asks_for_a_judgement_has_what_is_judged_changed(name, monkeypatch):
    """The generator as well: it must not learn from a discriminator of changed images what unchanged ones are worth."""
    cls, spec = discovery.model(name), DataSpec("images", (1, 8, 8), size=300, bits=8)
    torch.manual_seed(0)
    fields = {"augment": ("shift",), "augment_strength": 1.0}
    model = cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields)).train()
    counted = []
    monkeypatch.setattr(model.augmentation, "changed", lambda x: counted.append(len(x)) or x)
    for player in model.players():
        counted.clear()
        player.loss(Batch(torch.rand(8, 1, 8, 8)))
        made = 16 if name == "vae_gan" else 8
        assert counted == {"discriminator": [8, 8], "encoder": []}.get(player.name, [made]), player.name


def test_what_is_no_image_and_a_strength_of_nothing_are_refused(capsys):
    with pytest.raises(UsageError, match="augment changes images, and these data are vectors"):
        GAN(DataSpec("vectors", (2,), size=100), GAN.Config(augment=("flip",)))
    assert "say how as well" in refused(capsys, "train", "gan", "--data", "digits", "--steps", "2", "--model.augment-strength", "0.5")


def test_what_the_discriminator_sees_is_drawn():
    dataset = data.load("digits")
    torch.manual_seed(0)
    fields = {"augment": ("shift",), "augment_strength": 1.0, "channels": 8}
    model = GAN(dataset.spec, dataclasses.replace(GAN.recipe(dataset.spec, None).config, **fields)).eval()
    image = figures.draw("augmentation", model, dataset)
    assert len(image.axes[0].texts) == 4
    plain = GAN(dataset.spec, GAN.recipe(dataset.spec, None).config).eval()
    with pytest.raises(UsageError, match=r"--model\.augment"):
        figures.draw("augmentation", plain, dataset)


def test_the_strength_is_training_state_and_the_figure_has_that_of_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(nn_augmentation, "IMAGES", 3000)  # so that a few moves are seen
    run = tmp_path / "run"
    made = pofx.train(
        "gan", "digits", run=run, steps=80, batch_size=64, quiet=True, report=False, channels=4, augment=("shift",), checkpoint_every="120"
    )
    logged = {line["step"]: line["discriminator/augmentation"] for line in made.metrics() if "discriminator/augmentation" in line}
    assert logged[160] != logged[120] > 0
    model, dataset = pofx.load(run), data.load("digits")
    assert not [name for name in model.state_dict() if name.startswith("augmentation")]
    for step in (120, 160):
        opened, strength = Run.open(f"{run}@{step}"), logged[step]
        assert float(opened.training_state()["augmentation.strength"]) == pytest.approx(strength)
        title = figures.draw("augmentation", opened.model(), dataset, run=opened).texts[-1].get_text()
        assert f"each in {strength:.0%} of" in title
        assert "preview" not in title
    assert "preview" in figures.draw("augmentation", model, dataset).texts[-1].get_text()
