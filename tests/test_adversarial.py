"""Promises of the games with a discriminator: who moves what, in which direction, and what comes out."""

import dataclasses

import pytest
import torch

from pofx import core, losses
from pofx.core import Batch, Classes, Column, DataSpec, Epochs, Noise, UsageError
from pofx.models.adversarial.gan import GAN
from pofx.models.hybrid.vae_gan import VAEGAN
from pofx.nn.relaxation import relaxed

MODELS = [GAN, VAEGAN]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 20, 36), (1, 112, 92), (2,)]
TABLE = DataSpec(
    "vectors",
    (6,),
    size=100,
    columns=(
        Column("age", "integer", 0, 1),
        Column("age", "missing", 1, 2),
        Column("colour", "category", 2, 5),
        Column("size", "number", 5, 6),
    ),
)


def spec_of(shape, **fields):
    kind = "images" if len(shape) == 3 else "vectors"
    return DataSpec(kind, shape, size=1000, bits=8 if kind == "images" else None, **fields)


def build(cls, spec, **fields):
    torch.manual_seed(0)
    return cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields))


def examples(spec, n=8):
    torch.manual_seed(5)
    return torch.rand(n, *spec.shape) if spec.kind == "images" else torch.randn(n, *spec.shape)


def move(model, name, batch, *, moves=0, lr=1e-3, seed=7):
    """The gradients of a player with everybody else frozen; then `moves` of its steps on fixed batch and random numbers."""
    player = next(player for player in model.players() if player.name == name)
    owned = [parameter for _, parameter in player.parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for parameter in owned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(owned, lr=lr)
    for i in range(moves + 1):
        torch.manual_seed(seed)
        loss = player.loss(batch)
        optimizer.zero_grad()
        loss.total.backward()
        if i < moves:
            optimizer.step()
    return loss


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_player_moves_all_of_its_own_and_samples_fit_the_data(cls, shape):
    spec = spec_of(shape)
    model = build(cls, spec)
    batch = Batch(examples(spec, 2))
    owned = set()
    for player in model.players():
        loss = move(model, player.name, batch)
        assert all(torch.isfinite(term) for term in loss.terms.values())
        mine = {id(parameter) for _, parameter in player.parameters()}
        assert {id(p) for p in model.parameters() if p.grad is not None} == mine
        owned |= mine
    assert owned == {id(p) for p in model.parameters()}
    with torch.no_grad():
        x = model.sample(3, noise=Noise(0, 3))
        later = model.sample(1, noise=Noise(0, 1, first=2))
    assert x.shape == (3, *shape)
    assert model.judge(x).shape == (3,)
    assert torch.allclose(x[2:], later, atol=1e-5)
    if spec.kind == "images":
        assert x.min() >= 0
        assert x.max() <= 1


@pytest.mark.parametrize("cls", MODELS)
def test_sampling_leaves_the_global_generator_alone(cls):
    model = build(cls, TABLE)
    before = torch.get_rng_state()
    model.sample(4, noise=Noise(0, 4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("cls", MODELS)
def test_discriminator_move_parts_real_from_fake(cls):
    spec = spec_of((1, 8, 8))
    model = build(cls, spec, gamma=0.0)
    batch = Batch(examples(spec))
    gap = [
        (loss.metrics["real_logit"] - loss.metrics["fake_logit"]).item()
        for loss in (move(model, "discriminator", batch, moves=k) for k in (0, 20))
    ]
    assert gap[1] > gap[0]


@pytest.mark.parametrize(("cls", "name"), [(GAN, "generator"), (VAEGAN, "decoder")])
def test_generator_move_raises_the_logit_of_its_own_examples(cls, name):
    spec = spec_of((2,))
    model = build(cls, spec, **({"feature_weight": 0.0, "pixel_weight": 0.0} if cls is VAEGAN else {}))
    batch = Batch(examples(spec))
    before, after = (move(model, name, batch, moves=k, lr=1e-2).metrics["fake_logit"].item() for k in (0, 20))
    assert after > before


@pytest.mark.parametrize("cls", MODELS)
def test_penalty_is_of_every_discriminator_move_and_flattens_it(cls):
    spec = spec_of((2,))
    model = build(cls, spec, gamma=100.0)
    batch = Batch(examples(spec))
    first = move(model, "discriminator", batch)
    assert first.terms["penalty"].item() == pytest.approx(losses.zero_centred_penalty(model.judge, batch.x).item(), rel=1e-5)
    assert move(model, "discriminator", batch, moves=10).terms["penalty"] < first.terms["penalty"]


@pytest.mark.parametrize("cls", MODELS)
def test_discriminator_does_not_mix_examples(cls):
    spec = spec_of((1, 8, 8))
    model, x = build(cls, spec), examples(spec)
    assert torch.allclose(model.judge(x)[:1], model.judge(x[:1]), atol=1e-5)


@pytest.mark.parametrize("weight", ["pixel_weight", "feature_weight"])
def test_vae_gan_decoder_follows_each_reconstruction(weight):
    spec = spec_of((2,))
    off = {"pixel_weight": 0.0, "feature_weight": 0.0}
    model, batch = build(VAEGAN, spec, **{**off, weight: 100.0}), Batch(examples(spec))
    term = {"pixel_weight": "reconstruction", "feature_weight": "features"}[weight]
    before, after = (move(model, "decoder", batch, moves=k).terms[term].item() for k in (0, 20))
    assert after < before


def test_vae_gan_encoder_pays_for_kl_and_features_but_never_the_discriminator():
    spec = spec_of((2,))
    batch = Batch(examples(spec))
    assert set(move(build(VAEGAN, spec), "encoder", batch).terms) == {"kl", "features", "reconstruction"}
    heavy = build(VAEGAN, spec, beta=100.0)
    before, after = (move(heavy, "encoder", batch, moves=k, lr=1e-4).terms["kl"].item() for k in (0, 50))
    assert after < before
    light = build(VAEGAN, spec, beta=0.0, pixel_weight=0.0)
    before, after = (move(light, "encoder", batch, moves=k, lr=1e-2).terms["features"].item() for k in (0, 50))
    assert after < before


def test_vae_gan_gradients_do_not_cross_from_one_player_to_another():
    # Nobody frozen here: even then the discriminator says nothing to the networks whose fakes it judges.
    spec = spec_of((1, 8, 8))
    model, batch = build(VAEGAN, spec), Batch(examples(spec))
    model.discriminator_loss(batch).total.backward()
    assert all(p.grad is None for net in (model.encoder, model.decoder) for p in net.parameters())
    model.zero_grad()
    model.decoder_loss(batch).total.backward()
    assert all(p.grad is None for p in model.encoder.parameters())


def test_vae_gan_codes():
    spec = spec_of((1, 8, 8))
    model, x = build(VAEGAN, spec), examples(spec)
    z = model.encode(x)
    assert z.shape == (len(x), *model.prior().event_shape)
    assert model.decode(z).shape == x.shape
    with pytest.raises(UsageError, match="no labels"):
        model.sample(2, noise=Noise(0, 2), label=torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("cls", MODELS)
def test_bfloat16_never_reaches_a_loss(cls):
    spec = spec_of((1, 28, 28))
    model = build(cls, spec).to(memory_format=torch.channels_last)
    with core.precision(torch.bfloat16):
        for player in model.players():
            loss = move(model, player.name, Batch(examples(spec, 2)))
            assert all(term.dtype == torch.float32 for term in loss.terms.values())


def test_tables_are_drawn_as_valid_rows_and_relaxed_with_gradients():
    model = build(GAN, TABLE)
    x = model.sample(200, noise=Noise(3, 200))
    assert torch.equal(x[:, 2:5].sort(1).values, torch.tensor([0.0, 0.0, 1.0]).expand(200, 3))
    empty = x[:, 1]
    assert set(empty.tolist()) == {0.0, 1.0}
    assert (x[empty == 1, 0] == 0).all()
    torch.manual_seed(0)
    output = torch.randn(4000, 6).requires_grad_(True)
    soft = relaxed(TABLE, output)
    assert torch.allclose(soft[:, 2:5].sum(1), torch.ones(4000))
    soft.square().sum().backward()
    assert (output.grad.abs().sum(0) > 0).all()
    # The largest element of a Gumbel-softmax is distributed as the softmax itself.
    logits = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 0.0]).expand(20_000, 6)
    shares = torch.nn.functional.one_hot(relaxed(TABLE, logits)[:, 2:5].argmax(1), 3).float().mean(0)
    assert torch.allclose(shares, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.02)


def test_conditional_gan_counts_labels_once_and_listens_to_them():
    spec = spec_of((2,), label=Classes(("a", "b", "c")))
    model = build(GAN, spec, conditional=True)
    batch = Batch(examples(spec, 5), torch.tensor([0, 0, 2, -1, 2]))
    move(model, "discriminator", batch)
    move(model, "generator", batch)
    assert model.condition.counts.tolist() == [2, 0, 2]
    model.eval()
    move(model, "discriminator", batch)
    assert model.condition.counts.tolist() == [2, 0, 2]
    x = batch.x[:1]
    assert len({model.judge(x, label=torch.tensor([y])).item() for y in (-1, 0, 1, 2)}) == 4
    assert not torch.equal(*(model.sample(1, noise=Noise(0, 1), label=torch.tensor([y])) for y in (0, 1)))
    model.condition.counts.copy_(torch.tensor([0, 1, 0]))
    # Drawing the class takes one request of the noise; with all of the marginal on one class the rest is its sample.
    noise = Noise(0, 3)
    noise.uniform(1)
    told = model.sample(3, noise=noise, label=torch.ones(3, dtype=torch.int64))
    assert torch.equal(model.sample(3, noise=Noise(0, 3)), told)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"conditional": True}, "needs data with labels"), ({"architecture": "conv"}, "choose dense")],
)
def test_gan_refuses_what_does_not_fit(fields, message):
    with pytest.raises(UsageError, match=message):
        build(GAN, spec_of((2,)), **fields)


def test_gan_refuses_labels_it_cannot_take():
    with pytest.raises(UsageError, match="trained without labels"):
        build(GAN, spec_of((2,))).sample(1, noise=Noise(0, 1), label=torch.tensor([0]))
    model = build(GAN, spec_of((2,), label=Classes(("a", "b"))), conditional=True)
    for label in (-1, 2):
        with pytest.raises(UsageError, match="class numbers from 0 to 1"):
            model.sample(1, noise=Noise(0, 1), label=torch.tensor([label]))


def test_steps_and_phases():
    spec = spec_of((2,))
    assert [player.steps for player in build(GAN, spec, discriminator_steps=3).players()] == [3, 1]
    assert [player.steps for player in build(GAN, spec, phase_epochs=0.5).players()] == [Epochs(0.5)] * 2
    with pytest.raises(UsageError, match="one or the other"):
        build(GAN, spec, phase_epochs=0.5, generator_steps=2)


def test_gan_learns_where_the_data_are():
    torch.manual_seed(0)
    spec = spec_of((2,))
    model = build(GAN, spec)
    x = torch.tensor([3.0, -2.0]) + 0.2 * torch.randn(512, 2)
    far = (model.sample(256, noise=Noise(0, 256)).mean(0) - x.mean(0)).norm()
    optimizers = {p.name: torch.optim.Adam([q for _, q in p.parameters()], lr=1e-3, betas=(0.0, 0.99)) for p in model.players()}
    for _ in range(300):
        for player in model.players():
            model.requires_grad_(False)
            for _, parameter in player.parameters():
                parameter.requires_grad_(True)
            optimizers[player.name].zero_grad()
            player.loss(Batch(x[torch.randint(512, (128,))])).total.backward()
            optimizers[player.name].step()
    near = (model.sample(256, noise=Noise(0, 256)).mean(0) - x.mean(0)).norm()
    assert near < 0.25 * far
