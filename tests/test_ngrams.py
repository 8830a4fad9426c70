"""Metrics of texts against counting by hand; copies, loops and foreign distributions are told from real text."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pofx import baselines, data
from pofx.baselines import NGram
from pofx.data.dataset import Split
from pofx.findings import Flag
from pofx.metrics import ngrams
from pofx.subject import Subject

WINDOW = 128


def hits_by_hand(texts, corpus, n):
    passages = {tuple(corpus[i : i + n]) for i in range(len(corpus) - n + 1)}
    return np.array([[tuple(text[i : i + n]) in passages for i in range(len(text) - n + 1)] for text in texts.tolist()])


@given(st.integers(1, 40), st.integers(0, 1000))
def test_equal_n_grams_and_no_others_have_equal_hashes(n, seed):
    tokens = np.random.default_rng(seed).integers(0, 2, 60)
    hashes = ngrams.grams(tokens, n)
    passages = [tuple(tokens[i : i + n]) for i in range(60 - n + 1)]
    assert len(hashes) == len(passages)
    assert all((hashes[i] == hashes[j]) == (passages[i] == passages[j]) for i, j in itertools.combinations(range(len(hashes)), 2))


def test_hashes_do_not_depend_on_the_place_or_on_the_type():
    text = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
    assert (ngrams.grams(text, 3)[:, 2:] == ngrams.grams(text[:, 2:].astype(np.uint8), 3)).all()
    assert ngrams.grams(text, 9).shape == (1, 0)
    with pytest.raises(ValueError, match="at least one token"):
        ngrams.grams(text, 0)


def test_divergence_is_bounded_and_known_for_simple_tables():
    assert ngrams.jensen_shannon(np.array([1.0, 3.0]), np.array([2.0, 6.0])) == 0
    assert ngrams.jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == pytest.approx(math.log(2))
    # M = (3/4, 1/4): H(M) - (0 + ln 2) / 2.
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) - math.log(2) / 2
    assert ngrams.jensen_shannon(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(expected)


def test_distinct_overlap_and_repetition_by_hand():
    pairs = np.array([[1, 2, 1, 1], [3, 4, 5, 2], [6, 6, 7, 8]])
    assert ngrams.distinct(pairs) == 8 / 12
    assert ngrams.overlap(pairs) == pytest.approx([1 / 4, 1 / 4, 0])
    assert ngrams.repeated(pairs) == pytest.approx([2 / 4, 0, 1 / 4])


@pytest.mark.parametrize("n", [1, 3, 8, 13])
@pytest.mark.parametrize("part", [7, 1 << 22])
def test_passages_are_found_as_by_a_search_in_full(monkeypatch, n, part):
    monkeypatch.setattr(ngrams, "PART", part)
    monkeypatch.setattr(ngrams, "SIEVE", 16)  # so narrow that most of what passes is not sought
    random = np.random.default_rng(n)
    corpus = random.integers(0, 3, 200)
    texts = np.concatenate((random.integers(0, 4, (5, 30)), corpus[None, 100:130], corpus[None, -30:]))
    found = ngrams.occurs(texts, torch.from_numpy(corpus.astype(np.uint8)), n)
    assert (found == hits_by_hand(texts, corpus.tolist(), n)).all()
    assert found[-2:].all()


def test_longest_run():
    hits = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    assert ngrams.longest_run(hits, 4).tolist() == [2 + 3, 0, 5 + 3]


def test_telling_length_is_the_first_that_is_rare_by_chance():
    random = np.random.default_rng(0)
    corpus, texts = random.integers(0, 2, 20_000), random.integers(0, 2, (40, 60))
    n = ngrams.telling_length(texts, torch.from_numpy(corpus))
    shares = [ngrams.occurs(texts, torch.from_numpy(corpus), length).mean() for length in (n - 1, n)]
    assert shares[0] >= ngrams.RARE > shares[1]
    # Half of all n-grams are there at n = log2(20,000), one in 20 some 4 tokens later.
    assert 16 <= n <= 21
    assert ngrams.telling_length(texts[:, :10], torch.from_numpy(corpus)) == 10


def test_longer_contexts_sum_to_one_and_are_counted_in_parts_as_at_once(monkeypatch):
    text = torch.tensor([0, 1, 0, 1, 1, 0, 2, 0, 1, 0])  # 3 never occurs
    windows = torch.tensor(list(itertools.product(range(4), repeat=4)))
    whole = NGram(text, 4, 4).log_prob(windows, 4)
    assert float(whole.exp().sum()) == pytest.approx(1)
    for part in (1, 3):
        monkeypatch.setattr(baselines, "PART", part)
        assert torch.equal(NGram(text, 4, 4).log_prob(windows, 4), whole)


def test_trigram_by_hand():
    text = torch.tensor([0, 1, 0, 1, 1])
    ngram = NGram(text, 2, 3)
    # 0 1 is followed once by 0 and once by 1; 1 alone too; unigram(0) = 3/7.
    pair = (1 + 2 * 3 / 7) / (2 + 2)
    assert float((ngram.log_prob(torch.tensor([[0, 1, 0]]), 3) - ngram.log_prob(torch.tensor([[0, 1]]), 3)).exp()) == pytest.approx(
        (1 + 2 * pair) / (2 + 2)
    )


def test_longer_contexts_know_more_of_the_text_they_learned():
    train = data.load("python_docs").train.x[:100_000]
    ngram = NGram(train, 128, 5)
    losses = [-float(ngram.log_prob(train[5000:5512].view(4, 128), order).mean()) for order in range(1, 6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[4] < 0.5 * losses[1]


def test_texts_of_a_bigram_follow_it():
    ngram = NGram(torch.tensor([0, 1, 0, 1, 1, 0, 2]), 4)
    n = 40_000
    texts = ngram.sample(n, 3, seed=1)
    assert torch.equal(texts, ngram.sample(n, 3, seed=1))
    windows = torch.tensor(list(itertools.product(range(4), repeat=3)))
    p = ngram.bigram(windows).exp().numpy()
    found = np.bincount((texts @ torch.tensor([16, 4, 1])).numpy(), minlength=64) / n
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()


@pytest.fixture(scope="module")
def dataset():
    return data.load("python_docs")


def measured(dataset, draw):
    """Rows and flags for a sampler from the number of texts to texts."""
    model = SimpleNamespace(spec=dataset.spec, window=WINDOW, config=SimpleNamespace())
    subject = Subject(model, dataset, dataset, dataset.test, "test")
    subject.drawn = draw(subject)  # in place of the cached property
    found = list(ngrams.measure(subject))
    return {row.name: row for row in found if not isinstance(row, Flag)}, [flag.check for flag in found if isinstance(flag, Flag)]


def test_a_perfect_model_is_as_good_as_real_text(dataset):
    # All parts, and the samples, are texts of one bigram: stationary, as no written text is.
    ngram = NGram(dataset.train.x, dataset.spec.vocabulary)
    text = ngram.sample(1500, 2 * WINDOW).flatten()
    cut = len(text) * 9 // 10
    same = dataclasses.replace(dataset, train=Split(text[:cut], tokens=True), test=Split(text[cut:], tokens=True))
    rows, flags = measured(same, lambda subject: ngram.sample(2 * subject.n, WINDOW, seed=1)[::2])
    assert flags == []
    assert {row.about for row in rows.values()} == {"samples", "memorisation"}
    for row in rows.values():
        assert list(row.baselines) == ["bigram"]
        if row.error:  # the floor is as uncertain as the number
            assert abs(row.model - row.floor) < 4 * math.sqrt(2) * row.error, row.name


def test_texts_of_a_bigram_are_further_from_held_out_text_than_training_text_is(dataset):
    rows, flags = measured(dataset, lambda subject: subject.bigram_texts)
    text, _ = measured(dataset, lambda subject: subject.other.x)
    assert flags == []
    for n in (3, 4):
        name = f"divergence of {n}-grams"
        assert rows[name].model - text[name].model > 4 * math.hypot(rows[name].error, text[name].error)
        assert rows[name].model == pytest.approx(rows[name].baselines["bigram"])
    name = "loss under a held-out n-gram"
    assert rows[name].model > text[name].model + 1
    # A bigram forgets how real text repeats itself.
    assert rows["different 4-grams"].model > rows["different 4-grams"].floor + 0.1


def test_a_sampler_that_copies_training_is_caught(dataset):
    rows, flags = measured(dataset, lambda subject: subject.other.x)
    assert flags == ["memorisation"]
    copied = next(row for name, row in rows.items() if name.endswith("copied from training"))
    assert copied.model == 1
    assert copied.floor < 0.5
    assert rows["longest copied run, mean"].model == WINDOW > rows["longest copied run, mean"].floor
    assert rows["longest copied run, of all texts"].model == WINDOW


def test_loops_are_caught(dataset):
    # Pieces of texts of a bigram, so that nothing is copied from training.
    rows, flags = measured(dataset, lambda subject: subject.bigram_texts[:, :8].repeat(1, WINDOW // 8))
    assert flags == ["repetition"]
    row = rows["8-grams that are earlier in the same sample"]
    # A text has at most 8 different 8-grams: all other places repeat one.
    assert 1 - 8 / (WINDOW - 7) <= row.model < 1


def test_equal_samples_are_caught(dataset):
    rows, flags = measured(dataset, lambda subject: subject.bigram_texts[:1].expand(subject.n, -1))
    assert flags == ["repetition"]
    assert rows["8-grams that are in another sample"].model == 1
    assert rows["8-grams that are earlier in the same sample"].model < 0.1


def test_no_row_for_a_text_of_few_windows(dataset):
    short = SimpleNamespace(spec=dataset.spec, window=len(dataset.test) // 3, config=SimpleNamespace())
    assert list(ngrams.measure(Subject(short, dataset, dataset, dataset.test, "test"))) == []
