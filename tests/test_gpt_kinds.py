"""Promises of `gpt` beyond texts: pixels and sequences of numbers are read by the rules of texts, and likelihoods are exact."""

import itertools
import math

import pytest
import torch

from pofx.core import Batch, Budget, Classes, DataSpec, Noise, UsageError
from pofx.models.autoregressive.gpt import GPT
from pofx.nn.sampling import Choice, fill, write

LABEL = Classes(("a", "b", "c"))


def build(spec, seed=0, **config) -> GPT:
    """A small model in float64, whose weights are all drawn at random: branches that start at zero would hide errors."""
    config = {"width": 16, "depth": 2, "heads": 2, "components": 3, "conditional": spec.label is not None} | config
    model = GPT(spec, GPT.Config(**config)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def images(shape=(1, 3, 4), bits=1, label=None):
    return DataSpec("images", shape, label=label, size=1000, bits=bits)


SEQUENCES = DataSpec("sequences", (6, 2), size=500)
KINDS = {"binary": images(), "grey": images(bits=8), "colour": images((3, 2, 3), bits=8), "sequences": SEQUENCES}
OF_IMAGES = pytest.mark.parametrize("kind", ["binary", "grey", "colour"])


def some(spec, n=3, seed=0, length=None):
    generator = torch.Generator().manual_seed(seed)
    if spec.kind == "sequences":
        return torch.randn(n, length or spec.shape[0], spec.shape[1], generator=generator, dtype=torch.float64)
    levels = 2**spec.bits
    return torch.randint(levels, (n, *spec.shape), generator=generator).double() / (levels - 1)


def every(shape):
    numbers = math.prod(shape)
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=numbers)), dtype=torch.float64).view(-1, *shape)


# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 1, 2)])
def test_probabilities_of_all_small_binary_images_sum_to_one(shape):
    scored = build(images(shape)).log_prob(every(shape))
    assert (scored.kind, scored.space) == ("exact", "binary")
    assert scored.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


@OF_IMAGES
def test_log_prob_is_the_sum_of_its_steps_in_raster_order_and_the_loss_its_mean(kind):
    model, x = build(KINDS[kind]), some(KINDS[kind])
    channels, height, width = model.spec.shape
    total = torch.zeros(len(x), dtype=torch.float64)
    with torch.no_grad():
        read = model.reader(model._levels(x))
        places = itertools.product(range(height), range(width), range(channels))
        for position, (i, j, c) in enumerate(places):
            level = (x[:, c, i, j] * (model.vocabulary - 1)).round().long()
            total += read(position).log_softmax(1)[torch.arange(len(x)), level]
    torch.testing.assert_close(model.log_prob(x).nats, total)
    loss = model.loss(Batch(x))
    torch.testing.assert_close(loss.total, -total.mean())
    torch.testing.assert_close(loss.metrics["bits_per_dimension"], -total.mean() / math.log(2) / x[0].numel())


@OF_IMAGES
def test_a_pixel_depends_on_those_before_it_and_on_all_of_them(kind):
    model, x = build(KINDS[kind]), some(KINDS[kind], n=1)
    inputs: list[torch.Tensor] = []
    model.network.embedding.register_forward_hook(lambda _module, _args, out: inputs.append(out) or out.requires_grad_())
    model.requires_grad_(False)
    ((logits, _, _),) = model.outputs(model._levels(x))
    for position in range(model.length):
        (gradient,) = torch.autograd.grad(logits[0, position].logsumexp(0), inputs[0], retain_graph=True)
        # Input 0 is the begin symbol and input t the level before position t.
        assert (gradient[0].abs().sum(-1) > 0).tolist() == [place <= position for place in range(model.length)]


def uncached(model, context=None):
    """A reader that reads the whole image anew for each of its numbers."""

    def reader(level):
        return lambda position: torch.cat([said[0] for said in model.outputs(level, context)], 1)[:, position]

    return reader


@OF_IMAGES
@torch.no_grad()
def test_cached_samples_and_completions_are_the_uncached_ones(kind):
    model, x = build(KINDS[kind]), some(KINDS[kind])
    of = {"vocabulary": model.vocabulary, "noise": Noise(1, 3)}
    plain = write(uncached(model), 3, length=model.length, choice=Choice(temperature=0.8, top_k=100), **of)
    assert torch.equal(model.sample(3, noise=Noise(1, 3), temperature=0.8, top_k=100), model._image(plain))
    keep = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    before = x.clone()
    filled = model.complete(x, keep, noise=Noise(1, 3))
    assert torch.equal(x, before)
    assert torch.equal(filled[keep], x[keep])
    assert not torch.equal(filled, x)
    order = (0, 2, 3, 1)
    level, kept = ((x * (model.vocabulary - 1)).round().long().permute(order).flatten(1), keep.permute(order).flatten(1))
    plain = fill(uncached(model), level, kept, choice=Choice(), **(of | {"noise": Noise(1, 3)}))
    torch.testing.assert_close(filled, model._image(plain))


@torch.no_grad()
def test_conditional_samples_are_the_uncached_ones_and_heed_the_label():
    model, label = build(images(label=LABEL)), torch.tensor([0, 1, 2])
    context = torch.eye(4, dtype=torch.float64)[:3]
    plain = write(uncached(model, context), 3, vocabulary=2, length=model.length, choice=Choice(), noise=Noise(1, 3))
    drawn = model.sample(3, noise=Noise(1, 3), label=label)
    assert torch.equal(drawn, model._image(plain))
    assert not torch.equal(drawn, model.sample(3, noise=Noise(1, 3), label=label.flip(0)))
    nothing = torch.zeros_like(drawn, dtype=torch.bool)
    assert torch.equal(drawn, model.complete(drawn, nothing, noise=Noise(1, 3), label=label))


@torch.no_grad()
def test_conditional_likelihoods_mix_over_the_training_marginal():
    model, x = build(images((1, 2, 2), label=LABEL)), every((1, 2, 2))
    model.train().loss(Batch(x[:4], torch.tensor([0, 0, 0, 1])))
    model.eval()
    each = torch.stack([model.log_prob(x, label=torch.full((16,), y)).nats for y in range(2)])
    mixed = model.log_prob(x)
    assert mixed.kind == "exact"
    torch.testing.assert_close(mixed.nats.exp(), 0.75 * each[0].exp() + 0.25 * each[1].exp())


@torch.no_grad()
def test_what_stands_behind_a_gap_has_no_influence_on_it():
    model, x = build(images((1, 4, 3))), some(images((1, 4, 3)))
    keep = torch.ones_like(x, dtype=torch.bool)
    keep[:, :, 1:3] = False
    other = x.clone()
    other[:, :, 3:] = 1 - other[:, :, 3:]
    one, two = (model.complete(y, keep, noise=Noise(0, 3)) for y in (x, other))
    assert torch.equal(one[:, :, :3], two[:, :, :3])


@torch.no_grad()
def test_the_likeliest_level_is_taken_where_nothing_is_drawn():
    model = build(images((1, 1, 1)))
    likelier = float(model.log_prob(every((1, 1, 1))).nats.argmax())
    for knobs in ({"temperature": 0.0}, {"mode": "mean"}, {"top_k": 1}):
        assert (model.sample(20, noise=Noise(0, 20), **knobs) == likelier).all()
    assert len(model.sample(50, noise=Noise(0, 50)).unique()) == 2


def test_a_large_batch_of_images_is_validated_by_its_first_rows():
    model = GPT(images((1, 64, 64)), GPT.Config(width=8, depth=1, heads=1)).eval()
    x = torch.rand(6, 1, 64, 64).round()
    with torch.no_grad():
        torch.testing.assert_close(model.validate(Batch(x)), model.loss(Batch(x[:4])).total)


def test_training_comes_below_the_independent_pixels():
    """Stripes: every pixel is fair by itself, and follows from the one above it."""
    random = torch.Generator().manual_seed(0)
    x = (torch.rand(64, 1, 1, 3, generator=random) < 0.5).float().expand(-1, -1, 3, -1).contiguous()
    torch.manual_seed(0)
    model = GPT(images((1, 3, 3)), GPT.Config(width=16, depth=2, heads=2, runs=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(Batch(x)).total.backward()
        optimizer.step()
    # Three fair coins at the top; the rest is certain. Independent pixels cost nine coins.
    assert float(model.loss(Batch(x)).total.detach()) < 1.3 * 3 * math.log(2)


def test_what_makes_no_sense_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="pixel_cnn"):
        build(images((3, 64, 64), bits=8))
    with pytest.raises(UsageError, match=r"--data\.bits"):
        build(images(bits=None))
    for spec in (SEQUENCES, DataSpec("tokens", (), size=100, vocabulary=3)):
        with pytest.raises(UsageError, match="conditional"):
            build(spec, conditional=True)
        with pytest.raises(UsageError, match="label"):
            build(spec).sample(1, noise=Noise(0, 1), label=torch.tensor([0]))
    for knobs in ({"length": 3}, {"prompt": torch.tensor([0])}, {"stop": lambda new: True}):
        with pytest.raises(UsageError, match="leave"):
            build(images()).sample(1, noise=Noise(0, 1), **knobs)
    for knobs in ({"top_k": 3}, {"stop": lambda new: True}, {"repetition_penalty": 2.0}):
        with pytest.raises(UsageError, match="tokens"):
            build(SEQUENCES).sample(1, noise=Noise(0, 1), **knobs)


# ---------------------------------------------------------------------------------------------------------- sequences


def test_the_density_of_a_step_integrates_to_one():
    model = build(SEQUENCES, width=4, depth=1, heads=1)
    side = torch.linspace(-14, 14, 561, dtype=torch.float64)
    scored = model.log_prob(torch.cartesian_prod(side, side)[:, None])
    assert (scored.kind, scored.space) == ("exact", "density")
    assert (scored.nats.exp().sum() * (side[1] - side[0]) ** 2).item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_a_step_depends_on_those_before_it_in_its_window_and_on_all_of_them():
    model, x = build(SEQUENCES), some(SEQUENCES, n=1, length=9)
    whole = torch.cat([said[0] for said in model.outputs(x)], 1)
    for changed in range(9):
        other = x.clone()
        other[:, changed] += 1
        again = torch.cat([said[0] for said in model.outputs(other)], 1)
        # Where six steps are full, the context starts anew with the last three.
        reached = [changed < place and (place < 6 or changed >= 3) for place in range(9)]
        assert (whole != again)[0].any(-1).tolist() == reached


@pytest.mark.parametrize("length", [4, 6, 15])
@torch.no_grad()
def test_what_is_said_from_memory_is_what_is_said_at_once(length):
    model, x = build(SEQUENCES), some(SEQUENCES, length=length)
    whole, read = torch.cat([said[0] for said in model.outputs(x)], 1), model.reader(x)
    # Uneven strides read some steps one by one and some in a piece.
    for position in [p for p in range(length) if p % 5 != 2]:
        torch.testing.assert_close(read(position), whole[:, position], rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_density_of_a_sequence_is_the_product_of_its_steps_and_the_loss_its_mean():
    model, x = build(SEQUENCES), some(SEQUENCES, length=13)
    steps = [model.log_prob(x[:, :stop]).nats - model.log_prob(x[:, : stop - 1]).nats for stop in range(2, 14)]
    torch.testing.assert_close(model.log_prob(x[:, :1]).nats + sum(steps), model.log_prob(x).nats)
    torch.testing.assert_close(model.loss(Batch(x[:, :6])).total, -model.log_prob(x[:, :6]).nats.mean())


@torch.no_grad()
def test_forecasts_follow_the_models_own_distribution():
    model, x, draws = build(SEQUENCES, depth=1), some(SEQUENCES, n=1, length=8), 4000
    drawn = model.forecast(x.expand(draws, -1, -1), 1, noise=Noise(0, draws))
    output, previous, _ = list(model.outputs(torch.cat((x, x[:, :1]), 1)))[-1]
    exact = model.mixture.distribution(output[:, -1], previous[:, -1, :-1])
    error = (drawn[:, 0].mean(0) - exact.mean[0]).abs() / exact.stddev[0]
    assert (error < 4 / math.sqrt(draws)).all()
    assert torch.allclose(drawn[:, 0].std(0), exact.stddev[0], rtol=0.1)


@torch.no_grad()
def test_completion_keeps_what_is_known_rows_do_not_meddle_and_nothing_given_is_sampling():
    model, x = build(SEQUENCES), some(SEQUENCES, n=4, length=10)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    whole = model.complete(x, mask, noise=Noise(3, 4))
    assert torch.equal(whole[mask], x[mask])
    assert not torch.equal(whole, x)
    halves = [model.complete(x[i : i + 2], mask[i : i + 2], noise=Noise(3, 2, first=i)) for i in (0, 2)]
    torch.testing.assert_close(whole, torch.cat(halves), rtol=0, atol=1e-9)
    nothing = model.complete(x, torch.zeros_like(mask), noise=Noise(5, 4))
    torch.testing.assert_close(nothing, model.sample(4, noise=Noise(5, 4), length=10), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize("budget", [None, Budget(minutes=0.1), Budget(minutes=600), Budget(steps=1), Budget(epochs=0.5)])
@pytest.mark.parametrize("size", [0, 1, 1_000_000])
@pytest.mark.parametrize("spec", [images((1, 28, 28)), images((3, 32, 32), bits=8), images((1, 1, 1)), SEQUENCES])
def test_the_recipe_of_every_kind_is_pure_and_its_model_can_be_built(spec, size, budget):
    spec = DataSpec(spec.kind, spec.shape, size=size, bits=spec.bits)
    recipe = GPT.recipe(spec, budget)
    assert recipe == GPT.recipe(spec, budget)
    assert recipe.batch_size >= 1
    with torch.device("meta"):
        GPT(spec, recipe.config)
