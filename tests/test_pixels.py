"""Promises of the models of pixels: normalised, blind to what comes later, and the same whether features are computed once or anew."""

import itertools
import math

import pytest
import torch

from pofx import data
from pofx.baselines import ContextCoder
from pofx.core import Batch, Classes, DataSpec, Noise, UsageError
from pofx.data.dataset import Split
from pofx.models.autoregressive.pixel_cnn import PixelCNN
from pofx.nn.levels import LogisticMixture, Softmax

CLASSES = Classes(("a", "b", "c"))


def build(shape=(1, 5, 6), *, bits=1, label=None, seed=0, **config) -> PixelCNN:
    """A small model in float64, whose weights are all drawn at random: branches that start at zero would hide errors."""
    config = {"width": 8, "depth": 2, "kernel": 3, "first_kernel": 5, "conditional": label is not None} | config
    model = PixelCNN(DataSpec("images", shape, label=label, size=1000, bits=bits), PixelCNN.Config(**config)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def images(shape, n=3, *, levels=2, seed=0):
    return torch.randint(levels, (n, *shape), generator=torch.Generator().manual_seed(seed)).double() / (levels - 1)


KINDS = {
    "binary": {"bits": 1},
    "grey softmax": {"bits": 8},
    "grey mixture": {"bits": 8, "likelihood": "logistic_mixture", "components": 3},
    "colour softmax": {"bits": 8, "shape": (3, 4, 5)},
    "colour mixture": {"bits": 8, "shape": (3, 4, 5), "likelihood": "logistic_mixture", "components": 3},
}
over_kinds = pytest.mark.parametrize("kind", KINDS)


def of_kind(kind):
    model = build(**KINDS[kind])
    return model, images(model.spec.shape, levels=2 ** (model.spec.bits or 0))


@torch.no_grad()
def test_probabilities_of_all_small_binary_images_sum_to_one():
    model = build((1, 2, 2))
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    scored = model.log_prob(every)
    assert (scored.kind, scored.space) == ("exact", "binary")
    assert scored.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("likelihood", ["categorical", "logistic_mixture"])
@torch.no_grad()
def test_probabilities_of_all_grey_images_of_two_pixels_sum_to_one(likelihood):
    model = build((1, 1, 2), bits=8, likelihood=likelihood, components=3)
    level = torch.arange(256, dtype=torch.float64) / 255
    # All second pixels behind each of six first ones, whose own probability is that of the first place alone.
    seconds = [-model._nll(torch.stack((one.expand(256), level), 1).view(256, 1, 1, 2), None) for one in level[::51]]
    x = level.view(256, 1, 1, 1).expand(256, 1, 1, 2)
    first = -model.network.head.nll(model.network(x, None)[:, :, :1], x.permute(0, 2, 3, 1)[:, :, :1])
    assert first.exp().sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(torch.stack(seconds).logsumexp(1), first[::51], rtol=0, atol=1e-9)


@over_kinds
@torch.no_grad()
def test_a_pixel_depends_on_those_before_it_and_on_all_of_them(kind):
    """Which channels of which pixels reach each conditional, by changing one after the other."""
    model = build(**(KINDS[kind] | {"kernel": 5, "first_kernel": 7}))
    shape = model.spec.shape
    levels = 2**model.spec.bits
    x = images(shape, 1, levels=levels)
    features = model.network.features(x, None).flatten(1, 2)[0]
    places = shape[1] * shape[2]
    changed = x.repeat(places, 1, 1, 1)
    for place in range(places):
        changed[place, :, place // shape[2], place % shape[2]] = 1 - changed[place, :, place // shape[2], place % shape[2]]
    moved = (model.network.features(changed, None).flatten(1, 2) - features).abs().amax(-1) > 1e-12
    # Row: the pixel that was changed; column: the pixel whose features moved.
    assert torch.equal(moved, torch.ones(places, places, dtype=torch.bool).triu(1))


@over_kinds
def test_no_gradient_reaches_a_pixel_from_those_before_it(kind):
    model, x = of_kind(kind)
    x = x[:1].requires_grad_()
    features = model.network.features(x, None)[0]
    for i, j in itertools.product(range(0, x.shape[2], 2), range(x.shape[3])):
        (gradient,) = torch.autograd.grad(features[i, j].sum(), x, retain_graph=True)
        reached = (gradient[0].abs().sum(0) > 0).flatten()
        assert not reached[i * x.shape[3] + j :].any()


@over_kinds
@torch.no_grad()
def test_cached_features_are_the_plain_ones(kind):
    model, x = of_kind(kind)
    plain = model.network.features(x, None)
    raster = model.network.raster(len(x))
    for i in range(x.shape[2]):
        pixel = raster.row(i, x[:, :, i - 1] if i else None)
        for j in range(x.shape[3]):
            cached = pixel(j, x[:, :, i, j - 1] if j else None)
            torch.testing.assert_close(cached, plain[:, i, j], rtol=0, atol=1e-12)


def uncached(model, x, keep, noise, label=None):
    """What a model fills in where the features of all pixels are computed anew for each one."""
    uniform = noise.uniform(*x.shape[2:], x.shape[1], 2)
    for i, j in itertools.product(range(x.shape[2]), range(x.shape[3])):
        features = model.network.features(x, model._context(label, x))[:, i, j]
        x[:, :, i, j] = model.network.head.draw(features, x[:, :, i, j], keep[:, :, i, j], uniform[:, i, j])
    return x


@over_kinds
@torch.no_grad()
def test_cached_samples_and_completions_are_the_uncached_ones(kind):
    model, x = of_kind(kind)
    empty = torch.zeros_like(x)
    drawn = model.sample(3, noise=Noise(1, 3))
    assert torch.equal(drawn, uncached(model, empty, empty > 0, Noise(1, 3)))
    keep = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    keep[:, :, 1] = True
    filled = model.complete(x, keep, noise=Noise(1, 3))
    assert torch.equal(filled, uncached(model, x.masked_fill(~keep, 0), keep, Noise(1, 3)))
    assert not torch.equal(filled, x)


@torch.no_grad()
def test_conditional_samples_are_the_uncached_ones():
    model = build(label=CLASSES)
    label = torch.tensor([0, 1, 2])
    empty = torch.zeros(3, 1, 5, 6, dtype=torch.float64)
    assert torch.equal(model.sample(3, noise=Noise(1, 3), label=label), uncached(model, empty, empty > 0, Noise(1, 3), label))


def head_of(head):
    """A head in float64 with weights drawn at random, the features of one pixel, and all colours."""
    head = head.double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    levels = 2 if isinstance(head, Softmax) else 256
    level = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    return head, torch.tensor([0.3, -1.0, 0.5, 2.0]).double(), torch.cartesian_prod(*[level] * head.channels)


HEADS = pytest.mark.parametrize("head", [lambda: Softmax(3, 4, 2), lambda: LogisticMixture(2, 4, 3)], ids=["softmax", "mixture"])


@HEADS
@torch.no_grad()
def test_probabilities_of_all_colours_sum_to_one_and_draws_are_as_frequent(head):
    head, features, every = head_of(head())
    x = every[:, None, None]
    p = (-head.nll(head(features.expand(len(x), 1, 1, 4), x), x)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-9)
    n = 4000
    uniform = torch.rand(n, head.channels, 2, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(n, head.channels, dtype=torch.float64)
    drawn = head.draw(features.expand(n, 4), nothing, nothing > 0, uniform)
    # Which channels are bright, as one number: eight or four cases.
    place = 2.0 ** torch.arange(head.channels).double()
    frequency = torch.bincount(((drawn > 0.5).double() @ place).long(), minlength=2**head.channels) / n
    wanted = torch.zeros(2**head.channels).double().index_add(0, ((every > 0.5).double() @ place).long(), p)
    assert float((frequency - wanted).abs().max()) < 4 * math.sqrt(0.25 / n)


@HEADS
@torch.no_grad()
def test_channels_that_are_kept_change_the_others(head):
    """Given the first channel, the others are as frequent as conditional probabilities say."""
    head, features, every = head_of(head())
    x = every[:, None, None]
    p = (-head.nll(head(features.expand(len(x), 1, 1, 4), x), x)).exp()
    n = 4000
    first = every[len(every) - 1, 0]
    uniform = torch.rand(n, head.channels, 2, generator=torch.Generator().manual_seed(1))
    given = torch.zeros(n, head.channels, dtype=torch.float64)
    given[:, 0] = first
    keep = torch.zeros(n, head.channels, dtype=torch.bool)
    keep[:, 0] = True
    drawn = head.draw(features.expand(n, 4), given, keep, uniform)
    assert (drawn[:, 0] == first).all()
    rows = every[:, 0] == first
    wanted = float(p[rows & (every[:, 1] > 0.5)].sum() / p[rows].sum())
    assert abs(float((drawn[:, 1] > 0.5).double().mean()) - wanted) < 4 * math.sqrt(0.25 / n)


@torch.no_grad()
def test_conditional_likelihoods_mix_over_the_training_marginal():
    model = build((1, 2, 2), label=CLASSES)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    model.train()
    model.loss(Batch(every[:4], torch.tensor([0, 0, 0, 1])))
    model.eval()
    each = torch.stack([model.log_prob(every, label=torch.full((16,), y)).nats for y in range(2)])
    mixed = model.log_prob(every)
    assert mixed.kind == "exact"
    torch.testing.assert_close(mixed.nats.exp(), 0.75 * each[0].exp() + 0.25 * each[1].exp())
    assert mixed.nats.exp().sum().item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_what_stands_behind_a_gap_has_no_influence_on_it():
    model = build()
    x = images((1, 5, 6), 2)
    keep = torch.ones_like(x, dtype=torch.bool)
    keep[:, :, 1:3] = False
    other = x.clone()
    other[:, :, 3:] = 1 - other[:, :, 3:]
    one, two = (model.complete(y, keep, noise=Noise(0, 2)) for y in (x, other))
    assert torch.equal(one[:, :, :3], two[:, :, :3])


@torch.no_grad()
def test_a_low_temperature_takes_the_likeliest_level():
    model = build((1, 1, 1))
    likelier = float(model.log_prob(torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)).nats.argmax())
    assert (model.sample(50, noise=Noise(0, 50), temperature=1e-3) == likelier).all()
    assert len(model.sample(50, noise=Noise(0, 50)).unique()) == 2


def test_what_has_no_levels_is_refused():
    with pytest.raises(UsageError, match=r"--data\.bits"):
        build(bits=None)
    with pytest.raises(UsageError, match="categorical"):
        build(likelihood="logistic_mixture")
    with pytest.raises(UsageError, match="odd"):
        PixelCNN.Config(kernel=4)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
@pytest.mark.parametrize("kind", ["grey softmax", "grey mixture"])
def test_no_temperature_that_is_none_draws_or_completes(kind, temperature):
    model, x = of_kind(kind)
    with pytest.raises(UsageError, match="temperature must be more than 0"):
        model.sample(3, noise=Noise(0, 3), temperature=temperature)
    with pytest.raises(UsageError, match="temperature must be more than 0"):
        model.complete(x, torch.zeros_like(x, dtype=torch.bool), noise=Noise(0, 3), temperature=temperature)


def test_training_comes_below_the_independent_pixels():
    """Stripes: every pixel is fair by itself, and follows from the one above it."""
    random = torch.Generator().manual_seed(0)
    x = (torch.rand(64, 1, 1, 6, generator=random) < 0.5).float().expand(-1, -1, 6, -1).contiguous()
    spec = DataSpec("images", (1, 6, 6), size=64, bits=1)
    torch.manual_seed(0)
    model = PixelCNN(spec, PixelCNN.Config(width=16, depth=1, kernel=3, first_kernel=3))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(Batch(x)).total.backward()
        optimizer.step()
    # Six fair coins at the top; the rest is certain.
    assert float(model.loss(Batch(x)).total.detach()) < 1.2 * 6 * math.log(2)
    drawn = model.eval().sample(8, noise=Noise(0, 8))
    assert float((drawn[:, :, 1:] == drawn[:, :, :-1]).float().mean()) > 0.95


def test_the_counting_coder_is_normalised_and_sees_neighbours():
    random = torch.Generator().manual_seed(0)
    stripes = (torch.rand(200, 1, 1, 4, generator=random) < 0.5).to(torch.uint8).expand(-1, -1, 4, -1).contiguous() * 255
    coder = ContextCoder(data.from_arrays(stripes.numpy(), options=data.Options(validation=0.0, bits=1)).train, 2)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    assert coder.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-9)
    # Four fair coins, and twelve pixels that follow from those above: far below sixteen coins.
    nats = -coder.log_prob(stripes.float() / 255)
    assert 4 * math.log(2) - 0.2 < float(nats.mean()) < 8 * math.log(2)


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 1, 1)])
def test_the_counting_coder_of_levels_is_normalised(shape):
    x = torch.randint(256, (50, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    coder = ContextCoder(Split(x, bits=8), 256)
    level = torch.arange(256) / 255
    assert coder.log_prob(torch.cartesian_prod(level, level).view(-1, *shape)).exp().sum().item() == pytest.approx(1, abs=1e-6)
