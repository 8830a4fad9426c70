"""The knobs of sampling, on distributions that are known, and the loop that writes with them."""

import pytest
import torch

from pofx.core import Noise, UsageError
from pofx.nn.sampling import NOTHING, Choice, fill, write

LOGITS = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()


def chances(past=None, **knobs):
    return Choice(**knobs).probabilities(LOGITS, None if past is None else torch.tensor([past]))[0].tolist()


def test_without_knobs_the_models_own_distribution_is_drawn_from():
    assert chances() == pytest.approx([0.5, 0.2, 0.15, 0.1, 0.05])
    assert chances([0, 1, 2]) == pytest.approx([0.5, 0.2, 0.15, 0.1, 0.05])


def test_temperature_raises_probabilities_to_its_inverse():
    powers = [p**2 for p in (0.5, 0.2, 0.15, 0.1, 0.05)]
    assert chances(temperature=0.5) == pytest.approx([p / sum(powers) for p in powers])
    assert chances(temperature=0.0) == chances(mode="mean") == [1, 0, 0, 0, 0]


def test_top_k_keeps_the_k_likeliest_at_their_odds():
    assert chances(top_k=2) == pytest.approx([5 / 7, 2 / 7, 0, 0, 0])
    assert chances(top_k=9) == pytest.approx(chances())


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1), (0.49, 1), (0.51, 2), (0.69, 2), (0.71, 3), (0.96, 5), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_have_the_share(p, kept):
    found = chances(top_p=p)
    assert [value > 0 for value in found] == [i < kept for i in range(5)]
    assert sum(found) == pytest.approx(1)
    assert found[0] / max(found[kept - 1], 1e-9) == pytest.approx(0.5 / (0.5, 0.2, 0.15, 0.1, 0.05)[kept - 1])


def test_top_p_follows_the_order_of_the_likeliest_not_of_the_symbols():
    turned = Choice(top_p=0.6).probabilities(LOGITS.flip(1))[0]
    assert turned.tolist() == pytest.approx([0, 0, 0, 2 / 7, 5 / 7])


def test_a_penalty_on_repetition_is_a_power_of_what_was_said_whatever_the_zero_of_the_logits():
    expected = [0.5**3, 0.2, 0.15, 0.1**3, 0.05]
    for shift in (0.0, 10.0, -10.0):
        found = Choice(repetition_penalty=3.0).probabilities(LOGITS + shift, torch.tensor([[3, 0, 0]]))[0]
        assert found.tolist() == pytest.approx([p / sum(expected) for p in expected])


def test_no_run_of_tokens_comes_twice():
    # After 0 1 ... 0 came 1 before; in the second row nothing that ends like this came before.
    past = torch.tensor([[0, 1, 2, 0], [1, 2, 3, 4]])
    found = Choice(no_repeat_ngram=2).probabilities(LOGITS.expand(2, -1), past)
    assert found[0].tolist() == pytest.approx([5 / 8, 0, 1.5 / 8, 1 / 8, 0.5 / 8])
    assert found[1].tolist() == pytest.approx(chances())
    assert chances([0, 2], no_repeat_ngram=1) == pytest.approx([0, 0.2 / 0.35, 0, 0.1 / 0.35, 0.05 / 0.35])
    assert chances([0, 1], no_repeat_ngram=5) == pytest.approx(chances())


def test_where_everything_would_repeat_anything_may():
    assert chances([0, 1, 2, 3, 4], no_repeat_ngram=1) == pytest.approx(chances())


def alone(x):
    """A reader whose distribution depends on nothing."""
    return lambda _position: LOGITS.expand(len(x), -1)


def test_a_long_text_repeats_no_run_of_tokens():
    drawn = write(alone, 3, vocabulary=5, length=20, choice=Choice(no_repeat_ngram=3), noise=Noise(0, 3))
    for row in drawn.unfold(1, 3, 1):
        assert len({tuple(run) for run in row.tolist()}) == 18


def test_a_text_ends_with_what_stops_it_and_the_others_go_on():
    def stop(new):
        return int(new[-1]) == 1

    def texts(n, first=0):
        return write(
            alone, n, vocabulary=5, length=12, choice=Choice(), noise=Noise(0, n, first=first), prompt=torch.tensor([1, 0]), stop=stop
        )

    free = write(alone, 8, vocabulary=5, length=12, choice=Choice(), noise=Noise(0, 8), prompt=torch.tensor([1, 0]))
    drawn = texts(8)
    assert drawn.shape == free.shape
    lengths = []
    for whole, row in zip(free.tolist(), drawn.tolist(), strict=True):
        end = 2 + whole[2:].index(1) + 1 if 1 in whole[2:] else 14
        assert row == whole[:end] + [NOTHING] * (14 - end)
        lengths.append(end)
    assert len(set(lengths)) > 2
    assert torch.equal(drawn, torch.cat([texts(3), texts(5, first=3)]))


def test_who_watches_sees_every_new_token():
    seen = []
    drawn = write(
        alone, 4, vocabulary=5, length=9, choice=Choice(), noise=Noise(1, 4), prompt=torch.tensor([2]), watch=seen.append,
        stop=lambda new: len(new) == 5,
    )  # fmt: skip
    assert len(seen) == 5
    assert torch.equal(torch.stack(seen, 1), drawn[:, 1:6])
    assert (drawn[:, 6:] == NOTHING).all()


def test_what_was_kept_counts_as_said_when_gaps_are_filled():
    x = torch.tensor([[0, 1, 0, 0, 1]])
    mask = torch.tensor([[True, True, True, False, True]])
    for seed in range(20):
        filled = fill(alone, x, mask, vocabulary=5, choice=Choice(no_repeat_ngram=2), noise=Noise(seed, 1))
        assert torch.equal(filled[mask], x[mask])
        assert filled[0, 3] != 1


@pytest.mark.parametrize(
    ("knobs", "word"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"top_p": 1.5}, "top-p"),
        ({"top_p": -0.1}, "top-p"),
        ({"repetition_penalty": 0.0}, "repetition-penalty"),
        ({"no_repeat_ngram": 0}, "no-repeat-ngram"),
    ],
)
def test_senseless_knobs_are_refused(knobs, word):
    with pytest.raises(UsageError, match=word):
        Choice(**knobs)


def test_what_is_drawn_can_be_learned_from():
    weights = torch.zeros(5, 2, requires_grad=True)
    for drawn in (
        write(alone, 2, vocabulary=5, length=3, choice=Choice(), noise=Noise(0, 2)),
        fill(
            alone,
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, 3, dtype=torch.bool),
            vocabulary=5,
            choice=Choice(),
            noise=Noise(0, 2),
        ),
    ):
        torch.nn.functional.embedding(drawn, weights).sum().backward()
    assert weights.grad.sum() == 24
