"""Promises of `gpt`: it is a normalised distribution that never looks ahead, and its cache changes nothing."""

import itertools

import pytest
import torch

from pofx import core
from pofx.core import Batch, Budget, DataSpec, Noise, UsageError
from pofx.models.autoregressive.gpt import GPT
from pofx.nn.attention import attend
from pofx.nn.next_token import Runs
from pofx.nn.sampling import Choice, write


def build(vocabulary: int = 5, *, size: int = 1000, seed: int = 0, **config) -> GPT:
    """A small model in float64, whose weights are all drawn at random: branches that start at zero would hide errors."""
    config = {"window": 8, "width": 16, "depth": 2, "heads": 2} | config
    model = GPT(DataSpec("tokens", (), size=size, vocabulary=vocabulary), GPT.Config(**config)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


def tokens(vocabulary: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def test_a_logit_depends_on_the_tokens_before_it_and_on_all_of_them():
    model = build()
    x = tokens(5, 1, 8)
    inputs: list[torch.Tensor] = []
    model.network.embedding.register_forward_hook(lambda _module, _args, out: inputs.append(out) or out.requires_grad_())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    logits = model.logits(x)
    for position in range(8):
        (gradient,) = torch.autograd.grad(logits[0, position].logsumexp(0), inputs[0], retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        # Input 0 is the begin symbol and input t the token before position t.
        assert reached.tolist() == [place <= position for place in range(8)]


@pytest.mark.parametrize("window", [2, 3, 8])
def test_probabilities_of_all_short_texts_sum_to_one(window):
    model = build(3, window=window)
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    scored = model.log_prob(every)
    assert scored.kind == "exact"
    assert scored.space == "tokens"
    assert scored.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_loss_is_the_mean_of_minus_log_prob_per_token():
    model = build()
    x = tokens(5, 6, 8)
    loss = model.loss(Batch(x))
    torch.testing.assert_close(loss.total, -model.log_prob(x).nats.sum() / x.numel())
    assert set(loss.terms) == {"nll"}


@pytest.mark.parametrize("length", [3, 8, 21])
def test_cached_logits_equal_uncached_ones_within_and_beyond_the_window(length):
    model = build()
    x = tokens(5, 4, length)
    with torch.no_grad():
        whole = model.logits(x)
        read = model.reader(x)
        # Uneven strides read some tokens one by one and some in a piece.
        for position in [p for p in range(length) if p % 5 != 2]:
            torch.testing.assert_close(read(position), whole[:, position], rtol=0, atol=1e-10)


def test_the_context_slides_by_a_defined_rule():
    model = build(window=8)
    x = tokens(5, 1, 20)
    with torch.no_grad():
        logits = model.logits(x)
        # Tokens 8 to 11 follow the begin symbol and tokens 4 to 7; tokens 12 to 15 the begin symbol and tokens 8 to 11.
        torch.testing.assert_close(logits[:, 8:12], model.logits(x[:, 4:12])[:, 4:])
        torch.testing.assert_close(logits[:, 12:16], model.logits(x[:, 8:16])[:, 4:])


def test_greedy_samples_are_what_uncached_logits_would_give():
    model = build()
    drawn = model.sample(2, noise=Noise(0, 2), length=20, prompt=torch.tensor([1, 4]), mode="mean")
    assert drawn.shape == (2, 22)
    with torch.no_grad():
        assert torch.equal(model.logits(drawn).argmax(-1)[:, 2:], drawn[:, 2:])


def test_samples_do_not_depend_on_how_they_are_split_and_do_on_the_seed():
    model = build()
    whole = model.sample(6, noise=Noise(7, 6), length=20)
    parts = [model.sample(2, noise=Noise(7, 2, first=first), length=20) for first in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, model.sample(6, noise=Noise(8, 6), length=20))


def test_samples_follow_the_models_own_probabilities():
    model = build(3, window=2)
    count = 4000
    drawn = model.sample(count, noise=Noise(0, count))
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = model.log_prob(every).nats.exp() * count
    seen = (drawn[:, None] == every).all(-1).sum(0)
    # Chi-squared with 8 degrees of freedom exceeds 31.8 once in 10,000 times.
    assert ((seen - expected) ** 2 / expected).sum() < 31.8


def test_the_begin_symbol_is_never_emitted():
    model = build(2)
    drawn = model.sample(64, noise=Noise(0, 64), length=30)
    assert drawn.min() == 0
    assert drawn.max() == 1
    assert model.logits(drawn[:2]).shape[-1] == 2


def test_the_first_token_follows_a_begin_symbol_outside_the_vocabulary():
    model = build()
    model.logits(tokens(5, 2, 8))[:, 0].sum().backward()
    used = model.network.embedding.weight.grad.abs().sum(-1) > 0
    assert used.tolist() == [False] * 5 + [True]


def test_a_prompt_stays_and_steers():
    model = build()
    prompt = tokens(5, 11)
    other = prompt.clone()
    other[-1] = (other[-1] + 1) % 5
    drawn = model.sample(64, noise=Noise(0, 64), prompt=prompt)
    assert drawn.shape == (64, 11 + 8)
    assert (drawn[:, :11] == prompt).all()
    assert not torch.equal(drawn[:, 11:], model.sample(64, noise=Noise(0, 64), prompt=other)[:, 11:])


def test_top_k_and_temperature_narrow_the_choice():
    model = build()
    likeliest = model.sample(8, noise=Noise(0, 8), mode="mean")
    assert torch.equal(model.sample(8, noise=Noise(0, 8), top_k=1), likeliest)
    assert torch.equal(model.sample(8, noise=Noise(0, 8), temperature=1e-6), likeliest)
    assert not torch.equal(model.sample(8, noise=Noise(0, 8), top_k=5), likeliest)
    assert torch.equal(model.sample(8, noise=Noise(0, 8), top_k=5), model.sample(8, noise=Noise(0, 8)))


def test_completion_keeps_what_is_known_and_rows_do_not_meddle():
    model = build()
    x, mask = tokens(5, 4, 20), torch.rand(4, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 3] = True
    mask[0] = True
    given = x.masked_fill(~mask, -1)
    whole = model.complete(given, mask, noise=Noise(3, 4))
    assert torch.equal(given, x.masked_fill(~mask, -1))
    assert torch.equal(whole[mask], x[mask])
    assert whole.min() >= 0
    assert whole.max() < 5
    halves = [model.complete(x[i : i + 2], mask[i : i + 2], noise=Noise(3, 2, first=i)) for i in (0, 2)]
    assert torch.equal(whole, torch.cat(halves))


def test_completing_nothing_given_is_sampling():
    model = build()
    nothing = torch.zeros(3, 20, dtype=torch.bool)
    completed = model.complete(tokens(5, 3, 20), nothing, noise=Noise(5, 3))
    assert torch.equal(completed, model.sample(3, noise=Noise(5, 3), length=20))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"prompt": torch.tensor([5])}, "vocabulary"),
        ({"prompt": torch.tensor([-1])}, "vocabulary"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"length": -1}, "length"),
        ({"label": torch.tensor([0])}, "label"),
    ],
)
def test_senseless_requests_are_refused_in_a_sentence(arguments, word):
    with pytest.raises(UsageError, match=word):
        build().sample(1, noise=Noise(0, 1), **arguments)


def test_heads_must_divide_the_width_and_data_must_have_a_vocabulary():
    with pytest.raises(UsageError, match="multiple of 10"):
        build(width=16, heads=5)
    with pytest.raises(UsageError, match="vocabulary"):
        build(0)


BUDGETS = [None, Budget(minutes=0.1), Budget(minutes=3), Budget(minutes=600), Budget(steps=1), Budget(steps=10**6), Budget(epochs=0.5)]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [0, 1, 50, 1764, 100_000, 983_777, 10**9])
def test_the_recipe_is_pure_and_its_model_can_be_built(size, budget):
    spec = DataSpec("tokens", (), size=size, vocabulary=65)
    recipe = GPT.recipe(spec, budget)
    assert recipe == GPT.recipe(spec, budget)
    assert recipe.budget == (budget or Budget(minutes=3))
    assert GPT.Config.from_json(recipe.config.to_json()) == recipe.config
    assert recipe.batch_size >= 1
    if size:
        assert recipe.config.window <= size
    with torch.device("meta"):
        assert GPT(spec, recipe.config).window == recipe.config.window


def test_more_time_gives_a_larger_transformer_and_keeps_it_from_learning_by_heart():
    spec = DataSpec("tokens", (), size=983_777, vocabulary=65)
    found = [GPT.recipe(spec, Budget(minutes=minutes)).config for minutes in (0.5, 3, 10, 60)]
    for grows in ([config.depth for config in found], [config.dropout for config in found], [config.runs_dropout for config in found]):
        assert grows == sorted(grows)
        assert grows[0] < grows[-1]


def test_training_on_a_toy_text_finds_its_pattern():
    torch.manual_seed(0)
    text = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0] * 250)
    spec = DataSpec("tokens", (), size=len(text), vocabulary=4)
    recipe = GPT.recipe(spec, Budget(steps=30))
    model = GPT(spec, recipe.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for move in range(30):
        starts = torch.arange(4) * 7 + move
        loss = model.loss(Batch(text[starts[:, None] + torch.arange(model.window)]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    # A text of period 8 has almost no entropy; guessing costs log 4 = 1.39 nats a token.
    assert loss.total.item() < 0.5


def test_the_network_computes_in_bfloat16_and_answers_in_float32():
    model = build().float()
    seen = []
    model.network.transformer.blocks[0].widen.register_forward_hook(lambda _module, _args, out: seen.append(out.dtype))
    with core.precision(torch.bfloat16):
        loss = model.loss(Batch(tokens(5, 2, 8)))
    assert seen == [torch.bfloat16]
    assert loss.total.dtype == torch.float32


def test_depth_is_the_dial_of_the_size():
    spec, sizes = DataSpec("tokens", (), size=1000, vocabulary=65), []
    for depth in (1, 2, 4, 8):
        with torch.device("meta"):
            model = GPT(spec, GPT.Config(depth=depth))
        block = model.network.transformer.blocks[0]
        assert (block.widen.in_features, block.attention.heads) == (64 * depth, depth)
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert sizes == sorted(sizes)


def test_a_run_of_tokens_has_one_vector_wherever_it_stands_and_different_runs_have_others():
    torch.manual_seed(0)
    runs = Runs(4, 8, 3, 4000).double()
    torch.nn.init.normal_(runs.table.weight)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    vectors = runs(every, torch.full((64, 2), 3))[:, 2]
    # Of 64 runs among 4,000 rows at most a few share one, and then their last two tokens tell them apart.
    assert len(vectors.unique(dim=0)) == 64
    # The same runs further on, and with what stands before them told apart from what is read.
    later = torch.cat((torch.randint(4, (64, 5)), every), 1)
    torch.testing.assert_close(runs(later, torch.zeros(64, 2, dtype=torch.int64))[:, 7], vectors)
    torch.testing.assert_close(runs(every[:, 2:], every[:, :2])[:, 0], vectors)


def test_vectors_of_runs_are_left_out_in_training_alone_and_their_sum_keeps_its_mean():
    torch.manual_seed(0)
    runs = Runs(4, 3, 3, 64, dropout=0.25)
    torch.nn.init.normal_(runs.table.weight)
    tokens, before = torch.randint(0, 3, (2, 9)), torch.full((2, 2), 3)
    whole = runs.eval()(tokens, before)
    assert torch.equal(whole, runs(tokens, before))
    runs.train()
    drawn = torch.stack([runs(tokens, before) for _ in range(4000)])
    assert len(drawn[:, 0, 0].unique(dim=0)) == 4, "each of two vectors may be left out for itself"
    # Of two independent vectors each stays with a chance of 3/4: four standard errors.
    assert ((drawn.mean(0) - whole).abs() <= 4 * drawn.std(0) / 4000**0.5 + 1e-6).all()


def test_hashed_runs_are_spread_over_their_table():
    runs = Runs(65, 2, 4, 512)
    rows = runs.rows(tokens(65, 4, 4000), torch.zeros(4, 3, dtype=torch.int64))[:, 3:]
    for length in range(3):
        often = (rows[..., length] - 512 * length).flatten().bincount(minlength=512)
        # 15,988 runs among 512 rows: some 31 each.
        assert len(often) == 512
        assert often.min() > 0
        assert often.max() < 150


def test_attention_that_is_written_out_is_the_fused_one():
    query, key, value = torch.randn(3, 2, 4, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attend(query, key, value), fused)


@pytest.mark.parametrize("top_p", [None, 0.9])
def test_cached_samples_are_those_of_the_uncached_path_token_by_token(top_p):
    model, length = build(), 30
    choice = Choice(temperature=0.8, top_p=top_p)

    def uncached(x):
        return lambda position: model.logits(x[:, : position + 1])[:, -1]

    with torch.no_grad():
        plain = write(uncached, 5, vocabulary=5, length=length, choice=choice, noise=Noise(2, 5))
    assert torch.equal(model.sample(5, noise=Noise(2, 5), length=length, temperature=0.8, top_p=top_p), plain)


def test_in_float32_cached_logits_agree_to_rounding():
    model = build(20, width=32).float()
    x = tokens(20, 3, 30)
    with torch.no_grad():
        whole, read = model.logits(x), model.reader(x)
        for position in range(30):
            torch.testing.assert_close(read(position), whole[:, position], rtol=0, atol=1e-5 * max(1.0, float(whole.abs().max())))
