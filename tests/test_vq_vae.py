"""Promises of the VQ-VAE: a codebook of running means, gradients that pass it, a prior that is normalised, a bound that is one."""

import dataclasses
import itertools
import math

import pytest
import torch
from sklearn.cluster import KMeans

from pofx import core, data, examples, optim
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.metrics import reconstruction
from pofx.models.autoencoding.vq_vae import VQVAE, straight_through
from pofx.nn.codebook import DEAD, Codebook, perplexity
from pofx.settings import Settings
from pofx.subject import Subject
from pofx.trainer import Trainer

BINARY = DataSpec("images", (1, 2, 2), bits=1, size=1000)


def build(spec=BINARY, *, seed=0, **fields):
    """A small model in float64 whose prior is drawn at random: branches that start at zero would hide errors."""
    small = {"codebook_size": 3, "code_dim": 2, "architecture": "dense", "places": 2, "hidden": (8,)}
    small |= {"prior_width": 8, "prior_depth": 2, "prior_heads": 2} | fields
    torch.manual_seed(seed)
    model = VQVAE(spec, dataclasses.replace(VQVAE.recipe(spec, None).config, **small)).double().eval()
    with torch.no_grad():
        for parameter in model.prior_network.parameters():
            parameter.normal_(0, 0.5)
    return model


def clusters(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    return centres[torch.arange(n) % 4] + torch.randn(n, 2, generator=generator)


# ---------------------------------------------------------------------------------------------------------- codebook


def test_entries_become_the_centroids_of_k_means():
    x = clusters()
    book = Codebook(4, 2, decay=0.95)
    book.updates.fill_(1)
    book.sums.copy_(x[:4] + 1)
    for batch in x.split(40) * 30:
        book.learn(batch)
    expected = torch.from_numpy(KMeans(4, init=x[:4].numpy(), n_init=1).fit(x.numpy()).cluster_centers_).float()
    torch.testing.assert_close(book.entries, expected, atol=0.05, rtol=0)


def test_the_first_batch_places_the_entries_and_an_idle_one_comes_back():
    x = clusters()
    books = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        books.append(Codebook(8, 2, decay=0.9))
        books[-1].learn(x)
    book = books[0]
    assert torch.equal(book.entries, books[1].entries)
    assert not torch.equal(book.entries, books[2].entries)
    assert torch.cdist(book.entries, x).min(1).values.max() < 2
    book.sums[3] = 1e3 * book.counts[3]
    moves = 0
    while book.entries[3].norm() > 100:
        book.learn(x)
        moves += 1
        assert moves < 100
    # It was idle for as long as its count took to fall.
    assert moves >= math.log(DEAD) / math.log(0.9) - 1
    assert torch.cdist(book.entries[3:4], x).min() < 1e-4


def test_a_dead_entry_that_is_hit_is_the_one_that_is_handed_out():
    """Entries move after they were looked up, so that a vector is never given one that it was not nearest to."""
    torch.manual_seed(0)
    book = Codebook(3, 2, decay=0.5)
    book.updates.fill_(1)
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [10.0, 10.0]])
    book.counts.copy_(torch.tensor([100.0, 100.0, 1e-6]))
    book.sums.copy_(places * book.counts[:, None])
    x = torch.cat((torch.zeros(999, 2), torch.tensor([[10.0, 10.0]])))
    chosen, entries = book.learn(x)
    assert chosen[-1] == 2
    torch.testing.assert_close(entries[-1], places[2])
    torch.testing.assert_close(entries[0], places[0])


def test_nearest_is_nearest_and_perplexity_counts():
    book, z = Codebook(7, 3), torch.randn(5, 4, 3)
    assert torch.equal(book.nearest(z), torch.cdist(z, book.entries).argmin(-1))
    number, used = perplexity(torch.tensor([0, 1, 2, 3] * 5), 8)
    assert float(number) == pytest.approx(4)
    assert used.tolist() == [True] * 4 + [False] * 4
    assert float(perplexity(torch.zeros(9, dtype=torch.int64), 8)[0]) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------------ the game


def test_the_encoder_gets_the_gradient_of_the_decoder():
    z, entries, weight = torch.randn(6, 3).requires_grad_(), torch.randn(6, 3), torch.randn(3)
    reached = entries.clone().requires_grad_()
    for value in (straight_through(z, entries), reached):
        (value.sin() @ weight).sum().backward()
    torch.testing.assert_close(straight_through(z, entries), entries)
    torch.testing.assert_close(z.grad, reached.grad)


def test_commitment_draws_vectors_towards_their_entries():
    model = build(commitment=1.0)
    x = torch.randint(2, (50, 1, 2, 2)).double()
    z = model._vectors(x).detach().requires_grad_()
    model._vectors = lambda _: z
    model.loss(Batch(x)).terms["commitment"].backward()
    torch.testing.assert_close(z.grad, 2 * (z - model.codebook[model.codebook.nearest(z)]).detach() / len(x))


def test_the_prior_learns_codes_that_stand_still():
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.prior_loss(Batch(torch.ones(4, 1, 2, 2).double())).total.backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in (*model.encoder.parameters(), *model.decoder.parameters()))


def test_each_player_has_a_schedule_of_its_own_and_stands_still_after_its_span(monkeypatch):
    seen = []
    monkeypatch.setattr(optim, "ramp", lambda config, progress: seen.append((config.name, progress)) or 1.0)
    dataset = data.load("digits")
    torch.manual_seed(0)
    model = VQVAE(dataset.spec, VQVAE.recipe(dataset.spec, None).config)
    trainer = Trainer(model, dataset, Settings(steps=10, batch_size=8, ema=0.5))
    prior_loss, states = model.prior_loss, []

    def spied(batch):
        states.append({name: value.clone() for name, value in model.state_dict().items() if not name.startswith(("prior", "progress"))})
        return prior_loss(batch)

    trainer.players = tuple(dataclasses.replace(p, loss=spied) if p.name == "prior" else p for p in trainer.players)
    trainer.train()
    for name, count in (("adam", 6), ("muon", 4)):
        shares = [progress for kind, progress in seen if kind == name]
        assert shares == sorted(shares)
        assert len(shares) == count
        assert 0 <= shares[0] < 0.2 < 0.7 < shares[-1] < 1
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())
    kept = {name: value for name, value in trainer.average.state_dict().items() if name in states[0]}
    assert all(torch.equal(states[0][name], value) for name, value in kept.items())


def test_patience_waits_for_the_prior(monkeypatch):
    dataset = data.load("digits")
    torch.manual_seed(0)
    model = VQVAE(dataset.spec, VQVAE.recipe(dataset.spec, None).config)
    settings = Settings(steps=40, batch_size=8, ema=0.0, patience=2)
    trainer = Trainer(model, dataset, settings)
    # No validation is ever better than the first.
    monkeypatch.setattr(trainer.average, "validate", lambda batch: torch.tensor(1.0))
    assert trainer.train() == "stopped early"
    start = max(player.span[0] for player in model.players())
    assert start < trainer.progress <= start + 3 / 20 + 0.01


def test_an_idle_codebook_is_a_symptom():
    model = build(DataSpec("vectors", (4,), size=1000), codebook_size=40)
    batch = Batch(torch.randn(200, 4).double())
    model.progress.fill_(1.0)
    model.train().loss(batch)
    assert model.eval().symptoms(batch) == {}
    model.codebook.sums[1:] += 1e4
    (sentence,) = model.symptoms(batch).values()
    assert "1 of 40 entries" in sentence
    model.progress.fill_(0.0)
    assert model.symptoms(batch) == {}


# --------------------------------------------------------------------------------------------------- prior and bound


def every_code(model):
    return torch.tensor(list(itertools.product(range(model.config.codebook_size), repeat=model.places)))


@torch.no_grad()
def test_probabilities_of_all_codes_sum_to_one():
    model = build(places=3)
    log_p = model.prior().log_prob(model.codebook[every_code(model)].flatten(1))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert model.prior().support.is_discrete
    assert model.prior().log_prob(torch.zeros(2, 6).double()).tolist() == [-math.inf] * 2


@torch.no_grad()
def test_the_bound_lies_below_the_likelihood_which_is_normalised():
    model = build()
    codes = every_code(model)
    log_prior = model.prior().log_prob(model.codebook[codes].flatten(1))
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).double().view(-1, 1, 2, 2)
    output = model.decoder(model.codebook[codes])
    joint = torch.stack([log_prior - model.observation.nll(output, x.expand(len(codes), -1, -1, -1)) for x in images])
    exact = joint.logsumexp(1)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-10)
    scored = model.log_prob(images)
    assert scored.kind == "lower bound"
    assert (scored.nats < exact).all()
    # The bound is one of the terms of the sum.
    assert ((joint - scored.nats[:, None]).abs().min(1).values < 1e-10).all()
    assert float(model.validate(Batch(images))) == pytest.approx(-float(scored.nats.mean()))


@torch.no_grad()
def test_logits_by_memory_are_those_without():
    model, logits = build(places=6, codebook_size=5), []

    def choose(given):
        logits.append(given)
        return given.argmax(-1) if len(logits) % 2 else given.argmin(-1)

    codes = model.draw_codes(3, choose)
    torch.testing.assert_close(torch.stack(logits, 1), model.prior_network(model._shifted(codes)), atol=1e-10, rtol=0)


@torch.no_grad()
def test_draws_follow_the_prior():
    model, n = build(), 4000
    codes = every_code(model)
    p = model.prior().log_prob(model.codebook[codes].flatten(1)).exp()
    drawn = model.draw_codes(n, lambda logits: Noise(0, n).categorical(logits.softmax(-1)))
    assert drawn.shape == (n, 2)
    torch.manual_seed(0)
    for z in (model.prior().sample((n,)), model.prior().sample((2, n // 2)).flatten(0, 1)):
        found = (model.codebook.nearest(model._places(z))[:, None] == codes).all(-1).double().mean(0)
        assert (found - p).abs().max() < 4 * math.sqrt(0.25 / n)
    assert model.prior().sample().shape == model.prior().event_shape


@torch.no_grad()
def test_a_fitted_prior_takes_the_place_of_the_transformer():
    model = build()
    images = torch.randint(2, (5, 1, 2, 2), generator=torch.Generator().manual_seed(3)).double()
    z = model.encode(images)

    class Fitted(core.CodePrior):
        def draw(self, noise, *, temperature=1.0):
            return z + 1e-3

    model.fitted = Fitted()
    torch.testing.assert_close(model.sample(5, noise=Noise(0, 5)), model.decode(z))


def test_a_loss_without_a_likelihood_scores_nothing():
    model = build(DataSpec("images", (1, 2, 2), bits=8, size=1000), likelihood="squared_error")
    assert core.Scores not in model.capabilities
    with pytest.raises(UsageError, match="logistic"):
        model.log_prob(torch.rand(2, 1, 2, 2).double())
    with pytest.raises(UsageError, match="label"):
        model.sample(1, noise=Noise(0, 1), label=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(UsageError, match="temperature"):
        model.sample(1, noise=Noise(0, 1), temperature=0.0)


def test_bits_of_a_code_are_those_that_the_prior_needs():
    """Half of what a code's numbers, rounded one by one, would say: its places are entries, and share their numbers."""
    dataset = data.load("digits")
    torch.manual_seed(0)
    model = VQVAE(dataset.spec, VQVAE.recipe(dataset.spec, None).config)
    model.train().loss(examples.first(dataset.train, 64))
    part, held = examples.held_out(dataset)
    rows = {row.name: row for row in reconstruction.measure(Subject(model.eval(), dataset, dataset, held, part))}
    uniform = model.places * math.log2(model.config.codebook_size)
    # The head of an untrained prior is all but uniform.
    assert rows["bits of a code"].model == pytest.approx(uniform, rel=0.05)
    assert rows["bits of a code"].error is not None


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 13), (1, 1, 1), (1, 33, 90)])
def test_images_of_any_size(shape):
    spec = DataSpec("images", shape, bits=8, size=100)
    model = VQVAE(spec, VQVAE.recipe(spec, None).config).eval()
    x = torch.rand(2, *shape)
    assert model.decode(model.encode(x)).shape == x.shape
    assert model.codes(x).shape == (2, model.places)
