"""Promises of `rnn`: a normalised distribution that never looks ahead, whose carried state is what a whole pass would give."""

import itertools
import shutil

import pytest
import torch

import pofx
from pofx import checkpoint
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.data.dataset import Split
from pofx.models.autoregressive.rnn import RNN
from pofx.nn import sampling
from pofx.stream import Stream

SEQUENCES = DataSpec("sequences", (6, 2), size=500)
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru", "plain"])
KINDS = pytest.mark.parametrize("kind", ["tokens", "sequences"])


def build(kind="tokens", vocabulary=5, **config):
    """A small model in float64, whose weights are all drawn at random."""
    config = {"window": 8, "width": 12, "depth": 2, "components": 3, "runs": 3} | config
    spec = DataSpec("tokens", (), size=1000, vocabulary=vocabulary) if kind == "tokens" else SEQUENCES
    model = RNN(spec, RNN.Config(**config)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def some(kind, n=4, length=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if kind == "tokens":
        return torch.randint(5, (n, length), generator=generator)
    return torch.randn(n, length, 2, generator=generator, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------ distribution


@CELLS
def test_probabilities_of_all_short_texts_sum_to_one(cell):
    model = build(vocabulary=3, cell=cell, window=2)
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    scored = model.log_prob(every)
    assert (scored.kind, scored.space) == ("exact", "tokens")
    assert scored.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_the_density_of_a_sequence_integrates_to_one():
    model = build("sequences", width=6)
    # One step of two numbers, by the mixture's own centres and scales far inside the grid.
    side = torch.linspace(-14, 14, 561, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)[:, None]
    mass = model.log_prob(points).nats.exp().sum() * (side[1] - side[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-6)


@KINDS
@CELLS
def test_an_element_depends_on_those_before_it_and_on_all_of_them(kind, cell):
    model, x = build(kind, cell=cell), some(kind, n=1, length=7)
    whole = torch.cat([output for output, _, _ in model.outputs(x)], 1)
    for changed in range(7):
        other = x.clone()
        other[:, changed] = (x[:, changed] + 1) % 5 if kind == "tokens" else x[:, changed] + 1
        again = torch.cat([output for output, _, _ in model.outputs(other)], 1)
        assert (whole != again)[0].any(-1).tolist() == [place > changed for place in range(7)]


@KINDS
def test_log_prob_is_the_sum_of_its_steps_however_long(kind):
    model, x = build(kind), some(kind, length=21)
    whole = model.log_prob(x).nats
    assert whole.shape == (4,)
    # The loss of one window is that of the same model whose window is the whole.
    longer = build(kind, window=21)
    longer.load_state_dict(model.state_dict())
    loss = longer.loss(Batch(x)).total
    torch.testing.assert_close(-whole.mean() / (21 if kind == "tokens" else 1), loss)
    # p(x) = p(first) p(rest | first): a prefix costs no more than the whole, whatever the windows.
    first = model.log_prob(x[:, :5]).nats
    steps = [model.log_prob(x[:, :stop]).nats - model.log_prob(x[:, : stop - 1]).nats for stop in range(6, 22)]
    torch.testing.assert_close(first + sum(steps), whole)


# ------------------------------------------------------------------------------------------------------ carried state


@KINDS
@CELLS
def test_lanes_carry_on_what_a_whole_pass_would_know(kind, cell):
    model, x = build(kind, cell=cell, restart=0.0), some(kind, length=24)
    model.train()
    lane, losses = torch.arange(4), []
    for part in range(3):
        window = x[:, 8 * part : 8 * part + 8]
        # In two chunks, as gradients are accumulated.
        chunks = [slice(0, 2), slice(2, 4)]
        fresh = torch.full((4,), part == 0)
        losses.append(sum(model.loss(Batch(window[c], None, lane[c], fresh[c])).total for c in chunks) / 2)
    nats = -model.eval().log_prob(x).nats.mean()
    total = sum(losses) * (8 if kind == "tokens" else 1)
    torch.testing.assert_close(total, nats)


def test_fresh_lanes_and_restarts_forget():
    x = some("tokens", length=16)
    for config, fresh in (({"restart": 1.0}, False), ({"restart": 0.0}, True)):
        model = build(**config).train()
        model.loss(Batch(x[:, :8], None, torch.arange(4), torch.ones(4, dtype=torch.bool)))
        second = model.loss(Batch(x[:, 8:], None, torch.arange(4), torch.full((4,), fresh))).total
        torch.testing.assert_close(second, -model.eval().log_prob(x[:, 8:]).nats.mean() / 8)


def test_gradients_end_at_a_windows_start_and_evaluation_leaves_the_memory_alone():
    model = build(restart=0.0).train()
    x, lane = some("tokens", length=16), torch.arange(4)
    model.loss(Batch(x[:, :8], None, lane, torch.ones(4, dtype=torch.bool)))
    assert not model.memory.requires_grad
    before = model.memory.clone()
    loss = model.loss(Batch(x[:, 8:], None, lane, torch.zeros(4, dtype=torch.bool))).total
    loss.backward()
    assert not torch.equal(model.memory, before)
    before = model.memory.clone()
    model.eval().loss(Batch(x[:, 8:], None, lane, torch.zeros(4, dtype=torch.bool)))
    assert torch.equal(model.memory, before)
    assert not {"memory", "latest"} & set(model.state_dict())


def test_a_stream_in_lanes_goes_on_where_it_was_and_says_where_not():
    text = Split(torch.arange(1003), tokens=True)
    stream = Stream(text, name="model", size=4, window=10, seed=3, order="lanes")
    seen, last, restarts = set(), None, 0
    for j in range(stream.count):
        batch = stream.batch(j, device="cpu")
        assert batch.lane.tolist() == [0, 1, 2, 3]
        assert torch.equal(batch.x[:, 1:], batch.x[:, :-1] + 1)
        for lane in range(4):
            restarts += bool(batch.fresh[lane])
            goes_on = last is not None and int(batch.x[lane, 0]) == last[lane] + 1
            assert goes_on != bool(batch.fresh[lane])
        last = batch.x[:, -1].tolist()
        seen |= set(batch.x.flatten().tolist())
    # Each lane passes the end of the text once; all of the text is read, but for what is shorter than a window there.
    assert restarts == 8
    assert len(seen) > 1003 - 10
    half = stream.batch(5, device="cpu", rank=1, ranks=2)
    assert torch.equal(half.x, stream.batch(5, device="cpu").x[2:])
    assert half.lane.tolist() == [2, 3]


def test_examples_that_stand_alone_are_shuffled_whatever_was_asked_for():
    stream = Stream(Split(torch.randn(20, 3)), name="model", size=5, window=None, seed=0, order="lanes")
    assert stream.batch(0, device="cpu").lane is None
    assert sorted(torch.cat([stream.positions(j) for j in range(4)]).tolist()) == list(range(20))


def test_a_stopped_training_goes_on_bit_for_bit_with_the_states_of_its_lanes(tmp_path):
    (tmp_path / "x.txt").write_text("the cat sat on the mat. " * 100, encoding="utf-8")
    small = {"window": 8, "width": 8, "depth": 1, "batch_size": 4, "quiet": True, "report": False}
    straight = pofx.train("rnn", tmp_path / "x.txt", run=tmp_path / "straight", steps=12, checkpoint_every=7, accumulate=2, **small)
    # The same training, killed after its first checkpoint.
    shutil.copytree(straight.path, tmp_path / "killed")
    checkpoint.remove(tmp_path / "killed" / "checkpoints", 12)
    pofx.train("rnn", run=tmp_path / "killed", resume=True, quiet=True, report=False)
    one, other = (checkpoint.read(checkpoint.folder(tmp_path / name / "checkpoints", 12))[1] for name in ("straight", "killed"))
    assert bool((one[checkpoint.TRAINING]["buffer/memory"] != 0).any(1).all())
    assert one[checkpoint.TRAINING]["buffer/memory"].shape == (4, 16)
    for name, tensors in one.items():
        assert set(tensors) == set(other[name])
        assert all(torch.equal(value, other[name][key]) for key, value in tensors.items())


# ------------------------------------------------------------------------------------------------------------ drawing


@CELLS
def test_greedy_texts_are_what_a_whole_pass_would_give(cell):
    model = build(cell=cell)
    drawn = model.sample(2, noise=Noise(0, 2), length=20, prompt=torch.tensor([1, 4]), mode="mean")
    assert drawn.shape == (2, 22)
    whole = torch.cat([output for output, _, _ in model.outputs(drawn)], 1)
    assert torch.equal(whole.argmax(-1)[:, 2:], drawn[:, 2:])


@CELLS
@pytest.mark.parametrize("n", [1, 3])
def test_drawn_texts_are_those_of_reading_everything_again_for_each_token(cell, n):
    model = build(cell=cell)

    def again(x):
        return lambda position: model.logits(x[:, : position + 1])[:, position]

    how = {"vocabulary": 5, "length": 20, "choice": sampling.Choice(top_k=4, temperature=0.8), "prompt": some("tokens", 1, 3)[0]}
    drawn = [sampling.write(reader, n, noise=Noise(2, n), **how) for reader in (again, model.reader)]
    assert torch.equal(*drawn)


def test_samples_follow_the_models_own_probabilities():
    model = build(vocabulary=3)
    count = 4000
    drawn = model.sample(count, noise=Noise(0, count), length=2)
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = model.log_prob(every).nats.exp() * count
    seen = (drawn[:, None] == every).all(-1).sum(0)
    # Chi-squared with 8 degrees of freedom exceeds 31.8 once in 10,000 times.
    assert ((seen - expected) ** 2 / expected).sum() < 31.8


def test_a_prompt_stays_and_steers():
    model, prompt = build(), some("tokens", 1, 11)[0]
    other = prompt.clone()
    other[-1] = (other[-1] + 1) % 5
    drawn = model.sample(64, noise=Noise(0, 64), prompt=prompt)
    assert drawn.shape == (64, 11 + 8)
    assert (drawn[:, :11] == prompt).all()
    assert not torch.equal(drawn[:, 11:], model.sample(64, noise=Noise(0, 64), prompt=other)[:, 11:])


@KINDS
def test_completion_keeps_what_is_known_and_rows_do_not_meddle(kind):
    model, x = build(kind), some(kind, length=20)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, :3] = mask[0] = True
    whole = model.complete(x, mask, noise=Noise(3, 4))
    assert torch.equal(whole[mask], x[mask])
    assert not torch.equal(whole, x)
    halves = [model.complete(x[i : i + 2], mask[i : i + 2], noise=Noise(3, 2, first=i)) for i in (0, 2)]
    torch.testing.assert_close(whole, torch.cat(halves), rtol=0, atol=0 if kind == "tokens" else 1e-9)


@KINDS
def test_completing_nothing_given_is_sampling(kind):
    model, x = build(kind), some(kind, n=3, length=20)
    completed = model.complete(x, torch.zeros_like(x, dtype=torch.bool), noise=Noise(5, 3))
    torch.testing.assert_close(completed, model.sample(3, noise=Noise(5, 3), length=20), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "arguments", "word"),
    [
        ("tokens", {"prompt": torch.tensor([5])}, "vocabulary"),
        ("tokens", {"temperature": -1.0}, "temperature"),
        ("tokens", {"top_k": 0}, "top-k"),
        ("tokens", {"length": -1}, "length"),
        ("tokens", {"label": torch.tensor([0])}, "label"),
        ("sequences", {"top_k": 3}, "tokens"),
        ("sequences", {"stop": lambda new: True}, "tokens"),
    ],
)
def test_senseless_requests_are_refused_in_a_sentence(kind, arguments, word):
    with pytest.raises(UsageError, match=word):
        build(kind).sample(1, noise=Noise(0, 1), **arguments)


@CELLS
def test_it_learns_what_only_a_carried_state_can_know(cell):
    """Windows of four tokens of a text whose period is eight tokens."""
    torch.manual_seed(0)
    text = torch.tensor(([0, 0, 0, 1, 0, 0, 0, 2]) * 300)
    spec = DataSpec("tokens", (), size=len(text), vocabulary=3)
    model = RNN(spec, RNN.Config(cell=cell, window=4, width=24, depth=1, restart=0.0)).train()
    stream = Stream(Split(text, tokens=True), name="model", size=8, window=4, seed=0, order="lanes")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    late = []
    for j in range(300):
        loss = model.loss(stream.batch(j, device="cpu")).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        late += [float(loss.detach())] if j >= 250 else []
    # Windows have two different contents at the least, so that who sees nothing before them pays log(2) / 4 = 0.17 a token.
    assert sum(late) / len(late) < 0.05
