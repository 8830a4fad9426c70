"""Promises of `made`: normalised, blind to later variables, and the same whether units are computed once or anew."""

import itertools

import pytest
import torch
from torch.distributions import Normal

from pofx.core import Batch, Column, DataSpec, Noise, UsageError
from pofx.models.autoregressive.made import MADE

TABLE = (
    Column("age", "integer", 0, 1),
    Column("age", "missing", 1, 2),
    Column("colour", "category", 2, 5),
    Column("height", "number", 5, 6),
)
SPECS = {
    "binary": DataSpec("images", (1, 3, 4), size=1000, bits=1),
    "colour": DataSpec("images", (3, 2, 3), size=1000, bits=8),
    "vectors": DataSpec("vectors", (5,), size=1000),
    "table": DataSpec("vectors", (6,), size=1000, columns=TABLE),
}
over_specs = pytest.mark.parametrize("case", SPECS)


def build(spec, *, seed=0, **config):
    """A small model in float64, whose weights are all drawn at random."""
    model = MADE(spec, MADE.Config(**({"hidden": (17, 17, 9), "components": 2} | config))).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def examples(spec, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if spec.kind == "images":
        return torch.randint(2**spec.bits, (n, *spec.shape), generator=generator).double() / (2**spec.bits - 1)
    x = torch.randn(n, *spec.shape, generator=generator).double()
    if spec.columns:
        empty = (torch.rand(n, 1, generator=generator) < 0.4).double()
        colour = torch.nn.functional.one_hot(torch.randint(3, (n,), generator=generator), 3)
        x = torch.cat((x[:, :1] * (1 - empty), empty, colour, x[:, 5:]), 1)
    return x


@torch.no_grad()
def test_probabilities_of_all_small_binary_images_sum_to_one():
    model = build(DataSpec("images", (1, 2, 2), size=100, bits=1))
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    scored = model.log_prob(every)
    assert (scored.kind, scored.space) == ("exact", "binary")
    assert scored.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_a_density_of_two_numbers_integrates_to_one():
    model = build(DataSpec("vectors", (2,), size=100))
    line = torch.linspace(-30, 30, 401, dtype=torch.float64)
    nats = model.log_prob(torch.cartesian_prod(line, line)).nats
    assert float(nats.exp().sum()) * (60 / 400) ** 2 == pytest.approx(1, abs=1e-3)


@torch.no_grad()
def test_a_table_integrates_to_one():
    """Over colours, over whether the age is empty, and over both numbers; an empty age has no density."""
    model = build(SPECS["table"])
    for parameter in model.parameters():
        # Tame enough for a grid: neither narrow nor far away.
        parameter.mul_(0.4)
    line = torch.linspace(-25, 25, 301, dtype=torch.float64)
    step, total = 50 / 300, 0.0
    for colour in torch.eye(3).double():
        ages, heights = torch.cartesian_prod(line, line).unbind(1)
        known = torch.cat((ages[:, None], torch.zeros(len(ages), 1), colour.expand(len(ages), 3), heights[:, None]), 1)
        empty = torch.cat((torch.zeros(len(line), 1), torch.ones(len(line), 1), colour.expand(len(line), 3), line[:, None]), 1)
        total += float(model.log_prob(known).nats.exp().sum()) * step**2 + float(model.log_prob(empty.double()).nats.exp().sum()) * step
    assert total == pytest.approx(1, abs=1e-3)


@over_specs
def test_outputs_depend_on_earlier_variables_and_on_all_of_them(case):
    model = build(SPECS[case])
    inputs = model._inputs(examples(SPECS[case], 1).flatten(1)).requires_grad_()
    outputs = model.network(inputs)
    sources = torch.tensor(model.variables.input_variables)
    for place, variable in enumerate(model.variables.output_variables):
        (gradient,) = torch.autograd.grad(outputs[0, place], inputs, retain_graph=True)
        assert torch.equal(gradient[0] != 0, sources < variable)


def test_whether_a_number_is_empty_comes_before_it():
    order = build(SPECS["table"]).variables.order.tolist()
    assert sorted(order) == list(range(6))
    assert order.index(1) < order.index(0)


@over_specs
@torch.no_grad()
def test_units_computed_once_say_what_the_whole_network_says(case):
    model = build(SPECS[case])
    inputs = model._inputs(examples(SPECS[case]).flatten(1))
    whole = model.network(inputs)
    # What is not there yet cannot be read.
    there = torch.full_like(inputs, torch.nan)
    read = model.network.reader(there)
    sources = torch.tensor(model.variables.input_variables)
    for number, variable in enumerate(model.variables.variables, 1):
        torch.testing.assert_close(read(number), whole[:, variable.outputs], rtol=0, atol=1e-12)
        there[:, sources == number] = inputs[:, sources == number]


@over_specs
@torch.no_grad()
def test_samples_are_those_of_the_whole_network(case):
    spec = SPECS[case]
    model = build(spec)
    x = torch.zeros(4, *spec.shape, dtype=torch.float64).flatten(1)
    uniform = Noise(5, 4).uniform(len(model.variables.variables), 2)
    for number, variable in enumerate(model.variables.variables):
        about = model.network(model._inputs(x))[:, variable.outputs]
        x[:, variable.start : variable.stop] = model.variables.draw(variable, about, x, uniform[:, number])
    drawn = model.sample(4, noise=Noise(5, 4))
    if spec.kind == "images":
        assert torch.equal(drawn.flatten(1), x)
    else:
        torch.testing.assert_close(drawn, x, rtol=0, atol=1e-9)


@torch.no_grad()
def test_rows_that_are_drawn_are_rows_of_the_table():
    x = build(SPECS["table"]).sample(300, noise=Noise(0, 300))
    empty = x[:, 1]
    assert set(empty.tolist()) == {0.0, 1.0}
    assert (x[empty == 1, 0] == 0).all()
    assert (x[empty == 0, 0] != 0).all()
    assert (x[:, 2:5].sum(1) == 1).all()


@torch.no_grad()
def test_draws_of_a_mixture_have_its_distribution_function():
    model = build(DataSpec("vectors", (1,), size=100))
    n = 4000
    drawn = model.sample(n, noise=Noise(0, n))[:, 0]
    about = model.network(torch.zeros(1, 1).double())
    logits, centres, log_scales = model.variables._mixture("number", about)
    for point in (-1.0, 0.0, 1.5):
        wanted = float((logits.softmax(-1) * Normal(centres, log_scales.exp()).cdf(torch.tensor(point))).sum())
        assert abs(float((drawn <= point).double().mean()) - wanted) < 4 * (0.25 / n) ** 0.5


def test_it_learns_a_dependence():
    """y = x plus noise of a tenth: the density must know it, and so must completions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, generator=generator)
    data = torch.cat((x, x + 0.1 * torch.randn(512, 1, generator=generator)), 1)
    torch.manual_seed(0)
    model = MADE(DataSpec("vectors", (2,), size=512), MADE.Config(hidden=(32,), components=2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(Batch(data)).total.backward()
        optimizer.step()
    independent = 2 * 1.42
    assert float(model.loss(Batch(data)).total.detach()) < independent - 1
    keep = torch.tensor([[True, False]]).expand(512, 2)
    filled = model.eval().complete(data, keep, noise=Noise(0, 512))
    assert torch.equal(filled[:, 0], data[:, 0])
    assert float((filled[:, 1] - data[:, 0]).std()) < 0.3


def test_pixels_see_earlier_ones_directly_where_that_is_no_larger_than_the_rest():
    small, large = (DataSpec("images", shape, size=10_000, bits=1) for shape in ((1, 28, 28), (1, 112, 92)))
    for spec, direct in ((small, True), (large, False)):
        config = MADE.recipe(spec, None).config
        assert config.direct == direct
        model = MADE(spec, config)
        assert sum(parameter.numel() for parameter in model.parameters()) < 7_000_000
        assert [f"{10304**2:,}" in note for note in model.notes] == ([] if direct else [True])


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"--data\.bits"):
        build(DataSpec("images", (1, 2, 2), size=10))
    with pytest.raises(UsageError, match="hidden"):
        build(SPECS["vectors"], hidden=())
