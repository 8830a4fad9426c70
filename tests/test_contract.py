"""The laws that every model keeps, whatever its family: over every model that is found, on every kind of data it takes."""

import contextlib
import dataclasses
import inspect
import json
import re

import kill
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pofx import core, discovery, optim
from pofx.core import Batch, Classes, Column, DataSpec, Noise, UsageError

TABLE = (
    Column("age", "integer", 0, 1),
    Column("age", "missing", 1, 2),
    Column("colour", "category", 2, 5),
    Column("height", "number", 5, 6),
)
LABEL = Classes(("a", "b", "c"))
SPECS = {
    "images-1x8x8": DataSpec("images", (1, 8, 8), label=LABEL, size=1000, bits=8),
    "images-1x28x28": DataSpec("images", (1, 28, 28), size=60_000, bits=8),
    "images-1x28x28-binary": DataSpec("images", (1, 28, 28), size=60_000, bits=1),
    "images-3x32x32": DataSpec("images", (3, 32, 32), size=1000, bits=8),
    "images-1x20x36": DataSpec("images", (1, 20, 36), size=1000, bits=8),
    "vectors-plane": DataSpec("vectors", (2,), label=LABEL, size=1000),
    "vectors-table": DataSpec("vectors", (6,), size=1000, columns=TABLE),
    "sequences": DataSpec("sequences", (7, 2), size=1000),
    "tokens": DataSpec("tokens", (), size=512, vocabulary=11),
}
NAMES = discovery.names("models")
# All but what is made of trained runs, whose recipe says so.
TRAINED = kill.trained_models()
CASES = [(name, case) for name in TRAINED for case, spec in SPECS.items() if spec.kind in discovery.model(name).kinds]
# One case a kind for the laws that do not depend on sizes.
FEW = [(name, case) for name, case in CASES if case in {"images-1x8x8", "vectors-table", "sequences", "tokens"}]
N = 6


def spec_of(name, case):
    """The data of a case; where the model learns labels, these have some."""
    return dataclasses.replace(SPECS[case], label=LABEL) if issubclass(discovery.model(name), core.Classifies) else SPECS[case]


def build(name, case, **fields):
    cls, spec = discovery.model(name), spec_of(name, case)
    torch.manual_seed(0)
    return cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields))


def examples(model, n=N, seed=0):
    """A batch of random but legal examples, the same for equal seeds."""
    spec, generator = model.spec, torch.Generator().manual_seed(seed)
    if spec.kind == "tokens":
        return Batch(torch.randint(spec.vocabulary, (n, model.window), generator=generator))
    label = torch.randint(len(spec.label.names), (n,), generator=generator) if spec.label else None
    if spec.kind == "images":
        x = torch.randint(256, (n, *spec.shape), generator=generator).float() / 255
        return Batch(x.round() if spec.bits == 1 else x, label)
    x = torch.randn(n, *spec.shape, generator=generator)
    if spec.columns:
        empty = torch.rand(n, 1, generator=generator) < 0.4
        colour = torch.nn.functional.one_hot(torch.randint(3, (n,), generator=generator), 3)
        x = torch.cat((x[:, :1] * ~empty, empty, colour, x[:, 5:]), 1).float()
    return Batch(x, label)


def parameters(player):
    return [parameter for _, parameter in player.parameters()]


def moving(model, player, share=0.5):
    """Freezes everybody else, as the trainer does, and sets the clock to a share of the player's span."""
    model.train().requires_grad_(False)
    for parameter in parameters(player):
        parameter.requires_grad_(True)
    model.progress.fill_(player.span[0] + share * (player.span[1] - player.span[0]))


def total(player, batch, seed=1):
    torch.manual_seed(seed)
    return player.loss(batch).total


over_all = pytest.mark.parametrize(("name", "case"), CASES)
over_few = pytest.mark.parametrize(("name", "case"), FEW)


@over_few
def test_what_settings_take_away_is_told(name, case):
    model = build(name, case)
    for capability in core.CAPABILITIES:
        if isinstance(model, capability) and capability not in model.capabilities:
            with pytest.raises(UsageError, match=re.escape(model.conditions[capability])):
                discovery.require(model, capability, what="this")


def test_there_are_models():
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_cites_its_source(name):
    cls = discovery.model(name)
    text = f"{inspect.getmodule(cls).__doc__}\n{cls.__doc__}"
    assert "References:" in text
    assert "https://" in text


@over_all
def test_config_survives_json(name, case):
    cls = discovery.model(name)
    config = cls.recipe(spec_of(name, case), None).config
    assert cls.Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@over_all
def test_recipe_is_pure_and_takes_any_budget(name, case):
    cls, spec = discovery.model(name), spec_of(name, case)
    for budget in (None, core.Budget(steps=3), core.Budget(epochs=0.5), core.Budget(minutes=1)):
        recipe = cls.recipe(spec, budget)
        assert recipe == cls.recipe(spec, budget)
        assert budget is None or recipe.budget == budget


@over_all
def test_terms_are_finite_scalars_and_the_batch_stays(name, case):
    model = build(name, case)
    batch = examples(model)
    for player in model.players():
        moving(model, player)
        before = Batch(*(None if value is None else value.clone() for value in batch))
        loss = player.loss(batch)
        for key, value in {**loss.terms, **loss.metrics}.items():
            assert value.shape == (), key
            assert value.dtype == torch.float32, key
            assert value.isfinite(), key
        assert set(loss.weights) <= set(loss.terms)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(batch, before, strict=True) if mine is not None)


@over_few
def test_players_cover_every_parameter_and_each_gets_a_gradient(name, case):
    model = build(name, case)
    players = model.players()
    assert len({player.name for player in players}) == len(players)
    owned = {id(parameter) for player in players for parameter in parameters(player)}
    assert owned == {id(parameter) for parameter in model.parameters()}
    waiting = {(player.name, key) for player in players for key, p in model.named_parameters() if id(p) in set(map(id, parameters(player)))}
    optimizers = {player.name: optim.build(player) for player in players}
    for move in range(4):
        for player in players:
            # A network that grows has some layers early, others late.
            moving(model, player, (move + 0.5) / 4)
            flags = {key: p.requires_grad for key, p in model.named_parameters()}
            for parameter in model.parameters():
                parameter.grad = None
            total(player, examples(model, seed=move), seed=move).backward()
            mine = set(map(id, parameters(player)))
            for key, p in model.named_parameters():
                assert p.requires_grad == flags[key], f"{player.name} changed who moves {key}"
                assert p.grad is None or id(p) in mine, f"{player.name} moves {key}, which it does not own"
                if p.grad is not None and bool(p.grad.abs().sum() > 0):
                    waiting.discard((player.name, key))
            for optimizer in optimizers[player.name]:
                optimizer.step()
    assert not waiting


@over_few
def test_each_player_lowers_its_own_total(name, case):
    model = build(name, case)
    batch = examples(model, 16)
    for player in model.players():
        moving(model, player)
        optimizers = optim.build(player)
        optim.set_learning_rate(optimizers, 0.3)
        first = float(total(player, batch).detach())
        for _ in range(20):
            model.zero_grad(set_to_none=True)
            total(player, batch).backward()
            for optimizer in optimizers:
                optimizer.step()
        last = float(total(player, batch).detach())
        assert last < first, f"{player.name}: {first} -> {last}"


class Watch(TorchFunctionMode):
    """Notes where bfloat16 tensors are met: inside the networks, or outside, where losses are."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.depth, self.inside, self.outside = 0, 0, []
        forward = core.Network.forward

        def deeper(network, *inputs):
            self.depth += 1
            try:
                return forward(network, *inputs)
            finally:
                self.depth -= 1

        monkeypatch.setattr(core.Network, "forward", deeper)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bfloat16 for leaf in tree_leaves((args, kwargs, result))):
            if self.depth:
                self.inside += 1
            else:
                self.outside.append(getattr(function, "__name__", str(function)))
        return result


@over_few
def test_no_bfloat16_reaches_a_loss(name, case, monkeypatch):
    model = build(name, case)
    batch = examples(model)
    watch = Watch(monkeypatch)
    for player in model.players():
        moving(model, player)
        with core.precision(torch.bfloat16), watch:
            loss = player.loss(batch)
        assert all(term.dtype == torch.float32 and bool(term.isfinite()) for term in loss.terms.values())
    assert watch.outside == []
    assert watch.inside > 0 or not model.players(), "the networks did not compute in bfloat16"


@over_few
def test_evaluation_writes_no_memory(name, case):
    model = build(name, case).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = examples(model)
    with torch.no_grad():
        if model.validation is not None:
            score = model.validate(batch)
            assert score.shape == ()
            assert score.isfinite()
        if core.Samples in model.capabilities:
            model.sample(2, noise=Noise(0, 2))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@over_few
def test_a_second_instance_takes_the_state(name, case):
    model = build(name, case).eval()
    other = build(name, case).eval()
    for parameter in other.parameters():
        parameter.data.add_(1)
    other.load_state_dict(model.state_dict())
    for mine, theirs in zip(capable(model), capable(other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def capable(model):
    """What a model says in evaluation mode: a loss of each player, and a sample where it draws any."""
    with torch.no_grad():
        said = [total(player, examples(model)) for player in model.players()]
        return [*said, model.sample(2, noise=Noise(0, 2))] if core.Samples in model.capabilities else said


# ------------------------------------------------------------------------------------------------------ capabilities


def having(capability, cases=CASES):
    return pytest.mark.parametrize(("name", "case"), [pair for pair in cases if issubclass(discovery.model(pair[0]), capability)])


#: Networks for drawing, of models that take a step for each number of an image: those of the recipe take minutes. Images of more
#: numbers than `STEPS` are completed by them, and not drawn six times.
LIGHT, STEPS = {"gpt": {"depth": 1, "width": 64}}, 1000


def capable_model(name, case, capability, **fields):
    model = build(name, case, **fields).eval()
    if capability not in model.capabilities:
        pytest.skip(f"{name} on {case} does not declare {capability.__name__}")
    return model


def example_shape(model):
    return (model.window,) if model.spec.kind == "tokens" else model.spec.shape


@having(core.Samples)
@torch.no_grad()
def test_samples(name, case):
    model = capable_model(name, case, core.Samples, **LIGHT.get(name, {}))
    if name in LIGHT and torch.Size(model.spec.shape).numel() > STEPS:
        pytest.skip(f"{name} takes a step for each of the numbers of {case}, six times")
    drawn = model.sample(N, noise=Noise(3, N))
    assert drawn.shape == (N, *example_shape(model))
    assert torch.equal(drawn, model.sample(N, noise=Noise(3, N)))
    assert not torch.equal(drawn, model.sample(N, noise=Noise(4, N)))
    parts = torch.cat([model.sample(k, noise=Noise(3, k, first=first)) for first, k in ((0, 1), (1, 2), (3, 3))])
    if model.spec.kind == "tokens":
        assert drawn.dtype == torch.int64
        assert torch.equal(drawn, parts)
        assert 0 <= int(drawn.min()) <= int(drawn.max()) < model.spec.vocabulary
    else:
        torch.testing.assert_close(drawn, parts, rtol=0, atol=1e-5)
        assert drawn.isfinite().all()
    if model.spec.kind == "images":
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


@having(core.Samples, FEW)
@torch.no_grad()
def test_sampling_leaves_the_global_generator_alone(name, case):
    model = capable_model(name, case, core.Samples)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.sample(2, noise=Noise(0, 2))
    assert torch.equal(torch.rand(3), expected)


@having(core.Encodes)
@torch.no_grad()
def test_encodes(name, case):
    model = capable_model(name, case, core.Encodes)
    x = examples(model).x
    # A code that is one of finitely many is placed by the first batch that a training sees.
    total(model.train().players()[0], examples(model))
    z = model.eval().encode(x)
    assert z.ndim == 2
    assert len(z) == N
    assert z.isfinite().all()
    torch.testing.assert_close(z[:2], model.encode(x[:2]), rtol=0, atol=1e-5)
    assert not torch.allclose(z[0], z[1])


@having(core.Decodes)
@torch.no_grad()
def test_decodes(name, case):
    model = capable_model(name, case, core.Decodes)
    prior = model.prior()
    z = prior.sample((N,))
    assert z.ndim == 2
    assert prior.event_shape == z.shape[1:]
    x = model.decode(z)
    assert x.shape == (N, *example_shape(model))
    assert x.isfinite().all()
    if core.Encodes in model.capabilities:
        assert model.encode(examples(model).x).shape == z.shape
    if model.spec.kind == "images":
        assert 0 <= float(x.min()) <= float(x.max()) <= 1


class Constant(core.CodePrior):
    """The same code for every row, which remembers for how many it was asked."""

    def __init__(self, code):
        self.code, self.asked = code, []

    def draw(self, noise, *, temperature=1.0):
        self.asked.append(noise.n)
        return self.code.expand(noise.n, -1)


@having(core.Decodes)
@torch.no_grad()
def test_samples_come_from_a_prior_that_was_fitted_later(name, case):
    model = capable_model(name, case, core.Decodes)
    if not {core.Samples, core.Encodes} <= model.capabilities:
        pytest.skip(f"{name} on {case} has no codes of data to fit a prior to, or draws nothing")
    # A code that is one of finitely many is placed by the first batch that a training sees.
    total(model.train().players()[0], examples(model))
    own = model.eval().sample(N, noise=Noise(3, N))
    codes = model.encode(examples(model, 20).x)
    # As different as codes can be: what an untrained decoder makes of similar ones may be the same.
    one, other = codes[0], 100 * codes[(codes - codes[0]).norm(dim=1).argmax()]
    model.fitted = Constant(one[None])
    drawn = model.sample(N, noise=Noise(3, N))
    assert model.fitted.asked == [N]
    if model.spec.kind == "images":
        torch.testing.assert_close(drawn, model.decode(one.expand(N, -1)), rtol=0, atol=1e-5)
    parts = torch.cat([model.sample(k, noise=Noise(3, k, first=first)) for first, k in ((0, 1), (1, 2), (3, 3))])
    torch.testing.assert_close(drawn, parts, rtol=0, atol=1e-5)
    model.fitted = Constant(other[None])
    assert not torch.equal(drawn, model.sample(N, noise=Noise(3, N)))
    model.fitted = None
    assert torch.equal(own, model.sample(N, noise=Noise(3, N)))


@having(core.Scores)
def test_scores(name, case):
    model = capable_model(name, case, core.Scores)
    spec = model.spec
    likelihood = model.log_prob(examples(model).x)
    assert likelihood.nats.shape == (N,)
    assert likelihood.nats.isfinite().all()
    space = {"images": "binary" if spec.bits == 1 else "8-bit", "tokens": "tokens"}.get(spec.kind, "density")
    assert likelihood.space == space
    assert likelihood.samples is None or likelihood.kind == "lower bound"
    if space != "density":
        assert (likelihood.nats <= 0).all()


@having(core.Forecasts)
@torch.no_grad()
def test_forecasts(name, case):
    model = capable_model(name, case, core.Forecasts)
    x = examples(model).x
    before = x.clone()
    drawn = model.forecast(x, 9, noise=Noise(3, N))
    assert torch.equal(x, before)
    assert drawn.shape == (N, 9, *model.spec.shape[1:])
    assert drawn.isfinite().all()
    assert torch.equal(drawn, model.forecast(x, 9, noise=Noise(3, N)))
    assert not torch.equal(drawn, model.forecast(x, 9, noise=Noise(4, N)))
    parts = torch.cat([model.forecast(x[first : first + k], 9, noise=Noise(3, k, first=first)) for first, k in ((0, 1), (1, 2), (3, 3))])
    torch.testing.assert_close(drawn, parts, rtol=0, atol=1e-5)
    # What comes next depends on what was, and not on how far ahead is asked.
    assert not torch.equal(drawn, model.forecast(x + 1, 9, noise=Noise(3, N)))
    torch.testing.assert_close(drawn[:, :2], model.forecast(x, 2, noise=Noise(3, N)), rtol=0, atol=1e-5)


@having(core.Predicts)
@torch.no_grad()
def test_predicts(name, case):
    model = capable_model(name, case, core.Predicts)
    x = examples(model).x
    nats = model.logits(x).double().log_softmax(-1)
    assert nats.shape == (*x.shape, model.spec.vocabulary)
    steps = nats.gather(2, x[..., None])[..., 0].sum(1)
    torch.testing.assert_close(steps, model.log_prob(x).nats.double(), rtol=1e-4, atol=1e-4)
    # What comes later changes nothing.
    later = torch.cat((x[:, :3], (x[:, 3:] + 1) % model.spec.vocabulary), 1)
    torch.testing.assert_close(model.logits(later).double().log_softmax(-1)[:, :4], nats[:, :4], rtol=0, atol=1e-4)
    # A text may be longer than the window.
    assert model.logits(torch.cat((x, x), 1)).shape[1] == 2 * x.shape[1]


@having(core.Judges)
@torch.no_grad()
def test_judges(name, case):
    model = capable_model(name, case, core.Judges)
    x = examples(model).x
    logits = model.judge(x)
    assert logits.shape == (N,)
    torch.testing.assert_close(logits[:2], model.judge(x[:2]), rtol=0, atol=1e-5)


@having(core.Completes)
@torch.no_grad()
def test_completes(name, case):
    model = capable_model(name, case, core.Completes, **LIGHT.get(name, {}))
    x = examples(model).x
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    y = model.complete(x, mask, noise=Noise(0, N))
    assert y.shape == x.shape
    assert torch.equal(y[mask], x[mask])
    assert not torch.equal(y, x)


@having(core.Classifies)
@torch.no_grad()
def test_classifies(name, case):
    model = capable_model(name, case, core.Classifies)
    x = examples(model).x
    logits = model.classify(x)
    assert logits.shape == (N, len(LABEL.names))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:2], model.classify(x[:2]), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match=r"--data\.label"):
        type(model)(dataclasses.replace(model.spec, label=None), model.config)


CONDITIONAL = [
    (name, case)
    for name, case in CASES
    if SPECS[case].label is not None and "conditional" in {field.name for field in dataclasses.fields(discovery.model(name).Config)}
]


@pytest.mark.parametrize(("name", "case"), CONDITIONAL)
def test_conditional(name, case):
    model = build(name, case, conditional=True)
    batch = examples(model)
    for player in model.players():
        moving(model, player)
        assert player.loss(batch).total.isfinite()
        # A row without a label is learned too.
        assert player.loss(batch._replace(label=torch.full_like(batch.label, -1))).total.isfinite()
    model.eval()
    with torch.no_grad():
        label = torch.arange(N) % 3
        drawn = model.sample(N, noise=Noise(0, N), label=label)
        assert drawn.shape == (N, *example_shape(model))
        assert not torch.equal(drawn, model.sample(N, noise=Noise(0, N), label=(label + 1) % 3))
        assert model.sample(N, noise=Noise(0, N)).shape == drawn.shape


@pytest.mark.parametrize(("name", "case"), CONDITIONAL)
def test_conditional_is_refused_without_labels(name, case):
    cls = discovery.model(name)
    spec = dataclasses.replace(SPECS[case], label=None)
    with pytest.raises(UsageError):
        cls(spec, dataclasses.replace(cls.recipe(spec, None).config, conditional=True))


@pytest.mark.parametrize("name", NAMES)
def test_other_kinds_of_data_are_refused_by_declaration(name):
    cls = discovery.model(name)
    assert cls.kinds
    assert cls.kinds <= {spec.kind for spec in SPECS.values()}
    with contextlib.suppress(UsageError):
        assert cls.Config() == cls.Config.from_json({})
