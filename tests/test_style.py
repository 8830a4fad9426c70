"""A style-based generator: scaling is modulation, outputs keep their scale, codes mix layer by layer, truncation pulls to the mean."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from pofx import data, figures
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.models.adversarial.gan import GAN
from pofx.models.adversarial.style_gan import StyleGAN
from pofx.nn.style import Mapping, StyledConv, StyleGenerator
from pofx.settings import Settings
from pofx.trainer import Trainer

SPEC = DataSpec("images", (1, 13, 10), size=400, bits=8)


def build(spec=SPEC, **fields):
    torch.manual_seed(0)
    return StyleGAN(spec, dataclasses.replace(StyleGAN.recipe(spec, None).config, **{"channels": 4, "latent_dim": 6} | fields))


@pytest.mark.parametrize("demodulate", [True, False])
def test_scaling_in_and_out_is_a_convolution_for_each_example(demodulate):
    """Against the paper's equations 1 and 3: weights modulated and normalised one example at a time."""
    torch.manual_seed(0)
    layer = StyledConv(5, 7, 4, demodulate=demodulate).double()
    x, w = torch.randn(3, 5, 6, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    for one, code, found in zip(x, w, layer(x, w), strict=True):
        weight = layer.weight * layer.scale * layer.style(code)[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(found, F.conv2d(one[None], weight, padding=1)[0] + layer.bias[:, None, None], atol=1e-5, rtol=1e-4)


def test_the_mapping_ignores_the_length_of_a_code_and_moves_slowly():
    torch.manual_seed(0)
    mapping = Mapping(8, 8, 3)
    z = torch.randn(5, 8)
    torch.testing.assert_close(mapping(z), mapping(3 * z), atol=1e-4, rtol=1e-3)
    layer = mapping.layers[0]
    before = layer(z)
    with torch.no_grad():
        layer.weight += 0.01 * torch.randn_like(layer.weight)
    assert (layer(z) - before).abs().max() < 1e-3


def test_layers_take_styles_and_pictures_from_coarse_to_fine():
    generator = StyleGenerator(6, (2, 13, 10), channels=4)
    assert generator.places == [(4, 3), (7, 5), (7, 5), (13, 10), (13, 10)]
    w, noise = torch.randn(2, 5, 6), torch.randn(2, generator.numbers)
    assert generator(w, noise).shape == (2, 2, 13, 10)
    with torch.no_grad():
        for block in generator.blocks:
            block.noise.fill_(0.5)
    other = noise.clone()
    other[:, -1] += 1.0  # the last pixel of the finest picture
    changed = (generator(w, noise) != generator(w, other)).any(1)
    assert changed.any()
    assert not changed[:, :10].any()


def test_mixing_changes_what_its_layers_make():
    model = build().eval()
    one, other = torch.randn(2, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(model.mix(one, other, share=1.0), model.decode(one))
        torch.testing.assert_close(model.mix(one, other, share=0.0), model.decode(other))
        half = model.mix(one, other)
    assert (half - model.decode(one)).abs().max() > 1e-4
    assert (half - model.decode(other)).abs().max() > 1e-4


def test_truncation_pulls_to_the_mean_style():
    model = build().eval()
    with torch.no_grad():
        model.centre.copy_(model.mapping(torch.randn(4000, 6)).mean(0))
    spread = [model.sample(64, noise=Noise(0, 64), truncation=value).var(0).mean() for value in (None, 1.0, 0.5, 0.0)]
    torch.testing.assert_close(spread[0], spread[1])
    assert spread[1] > spread[2] > spread[3]
    with pytest.raises(UsageError, match="truncation"):
        model.sample(2, noise=Noise(0, 2), truncation=1.5)


def test_path_lengths_are_those_of_the_jacobian():
    """Of a map with one known length for every direction the penalty vanishes, once the mean has found it."""
    model = build().train()
    linear = torch.nn.Linear(6, 13 * 10, bias=False)
    torch.nn.init.orthogonal_(linear.weight)
    model._images = lambda w, noise=None: 3 * (w.mean(1) @ linear.weight.T).view(-1, 1, 13, 10)
    for _ in range(300):
        w = torch.randn(512, 5, 6, requires_grad=True)
        penalty = model._path_length(w)
    # ||J^T y|| has mean a and variance of some 1 / (2 x 6) of its square: y is random, not all directions.
    assert float(penalty.detach()) == pytest.approx(1 / 12, rel=0.3)
    assert float(model.length.value) == pytest.approx(3 / 5 * (6 / 130) ** 0.5, rel=0.1)


def generator_steps(dataset, moves, **fields):
    """Length of each move of the generator, and the penalties that it paid."""
    model = build(dataset.spec, **fields)
    trainer = Trainer(model, dataset, Settings(steps=moves, batch_size=16, ema=0.9, seed=0))
    lengths, penalties = [], []
    for _ in range(moves):
        trainer.move(0, 0.1)
        before = torch.cat([value.detach().flatten() for value in model.generator.parameters()])
        trainer.move(1, 0.1)
        after = torch.cat([value.detach().flatten() for value in model.generator.parameters()])
        lengths.append(float((after - before).norm()))
        penalties.append(trainer._latest["generator"][1].terms.get("path_length"))
    return lengths, penalties


def test_the_first_penalties_do_not_stall_the_generator():
    """A mean that begins at 0 makes them thousands, which the optimizer's memory of squares then divides by for a thousand moves."""
    dataset = data.load("digits")
    with_penalty, penalties = generator_steps(dataset, 40)
    without, _ = generator_steps(dataset, 40, path_length=0.0)
    assert max(float(penalty.detach()) for penalty in penalties) < 3
    assert 0.5 < sum(with_penalty[20:]) / sum(without[20:]) < 2


def test_the_mean_path_length_is_training_state():
    model = build().train()
    model._path_length(torch.randn(4, 5, 6))
    assert float(model.length.value) > 0
    assert not [name for name in model.state_dict() if name.startswith("length")]
    assert {"length.value", "length.taken"} <= {name for name, _ in model.named_buffers()}


def test_directions_and_memory_of_the_game():
    model = build(gamma=0.0, minibatch_std=0).train()
    batch = Batch(torch.rand(8, 1, 13, 10))
    loss = model.generator_loss(batch)
    assert set(loss.terms) == {"adversarial", "path_length"}
    assert model.centre.abs().sum() > 0
    assert float(model.length.value) > 0
    kept = model.centre.clone()
    model.eval().generator_loss(batch)
    assert torch.equal(model.centre, kept)
    assert set(build(path_length=0.0).train().generator_loss(batch).terms) == {"adversarial"}


def test_mixing_and_truncation_are_drawn():
    dataset = data.load("digits")
    model = build(dataset.spec).eval()
    assert len(figures.draw("mixing", model, dataset).axes[0].texts) == 6
    assert len(figures.draw("truncation", model, dataset).axes[0].texts) == 6
    gan = GAN(dataset.spec, GAN.recipe(dataset.spec, None).config).eval()
    assert len(figures.draw("truncation", gan, dataset).axes[0].texts) == 6
    with pytest.raises(UsageError, match="codes can be mixed"):
        figures.draw("mixing", gan, dataset)
