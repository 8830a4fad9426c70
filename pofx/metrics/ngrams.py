"""Drawn texts in terms of n-grams: their distribution, repetition, loss under a held-out n-gram, copies from training."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt64
from torch import Tensor

from pofx import intervals
from pofx.baselines import PART, NGram
from pofx.core import Samples
from pofx.data.dataset import Split
from pofx.findings import Draws, Flag, Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"tokens"})

#: Windows of held-out text that these numbers need at least.
ENOUGH = 4
#: Lengths whose distributions are compared, and whose different n-grams are counted.
LENGTHS, DISTINCT = (1, 2, 3, 4), (2, 4)
#: Length of a passage that texts hardly share by chance.
PASSAGE = 8
#: Order of the n-gram that judges texts, and tokens that it learns from at most.
ORDER, LEARNED = 5, 1 << 22
#: Share of held-out n-grams that may be in training for the length to tell copying, and the longest such length.
RARE, LONGEST = 0.05, 32
#: Training tokens that copies are sought in without `full`.
SEARCHED = 1 << 26
#: A share this far above that of real text, beyond chance, raises a flag.
MARGIN = 0.2
#: Slots of the sieve through which training n-grams pass before they are looked up.
SIEVE = 1 << 24


def _mixed(x: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """A bijection of 64 bits after which neighbouring numbers have nothing in common.

    References:
        Fast Splittable Pseudorandom Number Generators (Steele, Lea and Flood, 2014), https://doi.org/10.1145/2660193.2660195
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _joined(first: np.ndarray, second: np.ndarray, offset: int) -> np.ndarray:
    """Hashes of n-grams that begin as `first` and go on, `offset` tokens later, as `second`."""
    count = second.shape[-1] - offset
    return _mixed(first[..., :count] * np.uint64(0x9E6C63D0876A9A47) + second[..., offset:])


def grams(tokens: Shaped[np.ndarray, "... time"], n: int) -> UInt64[np.ndarray, "... places"]:
    """A 64-bit hash of the n tokens from each place on; equal n-grams have equal hashes, others all but surely not.

    Two halves at a time, so that the cost grows with log n. A text of fewer than n tokens has none.
    Raises `ValueError` for n below 1.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one token, not {n}")
    if tokens.shape[-1] < n:
        return np.empty((*tokens.shape[:-1], 0), np.uint64)
    power, length, whole, covered = _mixed(tokens.astype(np.uint64)), 1, None, 0
    while True:
        if n & length:
            whole = power if whole is None else _joined(whole, power, covered)
            covered += length
        if covered == n:
            return whole
        power = _joined(power, power, length)
        length *= 2


def jensen_shannon(p: Float[np.ndarray, " symbols"], q: Float[np.ndarray, " symbols"]) -> float:
    """H((p + q) / 2) - (H(p) + H(q)) / 2 in nats of two tables of counts: 0 for equal shares, ln 2 for nothing in common.

    Estimated from counts it is biased upwards, the more the fewer there are.

    References:
        Divergence Measures Based on the Shannon Entropy (Lin, 1991), https://doi.org/10.1109/18.61115
    """
    p, q = p / p.sum(), q / q.sum()

    def entropy(values: np.ndarray) -> float:
        values = values[values > 0]
        return float(-(values * np.log(values)).sum())

    return max(0.0, entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)


def distinct(hashes: Shaped[np.ndarray, "n places"]) -> float:
    """Different n-grams as a share of all of them.

    References:
        A Diversity-Promoting Objective Function for Neural Conversation Models (Li et al., 2016),
        https://arxiv.org/abs/1510.03055
    """
    return len(np.unique(hashes)) / hashes.size


def overlap(hashes: Shaped[np.ndarray, "n places"]) -> Float[np.ndarray, " n"]:
    """Of each text, the share of its n-grams that occur in another of the texts: Self-BLEU's question for one n.

    References:
        Texygen: A Benchmarking Platform for Text Generation Models (Zhu et al., 2018), https://arxiv.org/abs/1802.01886
    """
    _, place = np.unique(hashes, return_inverse=True)
    place = place.reshape(hashes.shape)
    # Each n-gram counts once for every text that it is in.
    owners = np.unique(np.stack([place.ravel(), np.repeat(np.arange(len(place)), place.shape[1])]), axis=1)
    texts = np.bincount(owners[0])
    return (texts[place] > 1).mean(1)


def repeated(hashes: Shaped[np.ndarray, "n places"]) -> Float[np.ndarray, " n"]:
    """Of each text, the share of its n-grams that it had before."""
    ordered = np.sort(hashes, 1)
    return (ordered[:, 1:] == ordered[:, :-1]).sum(1) / hashes.shape[1]


def occurs(texts: Shaped[np.ndarray, "n time"], corpus: Shaped[Tensor, " length"], n: int) -> Bool[np.ndarray, "n places"]:
    """Whether the n tokens from each place of the texts on occur in the corpus, which is read in parts."""
    sought = grams(texts, n)
    wanted, place = np.unique(sought, return_inverse=True)
    found, slot = np.zeros(len(wanted), dtype=bool), np.uint64(SIEVE - 1)
    sieve = np.zeros(SIEVE, dtype=bool)
    sieve[wanted & slot] = True
    for start in range(0, len(corpus) - n + 1, PART):
        hashes = grams(corpus[start : start + PART + n - 1].numpy(), n)
        hashes = hashes[sieve[hashes & slot]]
        there = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        found[there[wanted[there] == hashes]] = True
    return found[place.reshape(sought.shape)]


def telling_length(texts: Shaped[np.ndarray, "n time"], corpus: Shaped[Tensor, " length"]) -> int:
    """The shortest n at which less than 5 % of the texts' n-grams occur in the corpus, at most 32 and a text's length."""
    low, high = 1, min(LONGEST, texts.shape[1])
    while low < high:
        middle = (low + high) // 2
        if occurs(texts, corpus, middle).mean() < RARE:
            high = middle
        else:
            low = middle + 1
    return high


def longest_run(hits: Bool[np.ndarray, "n places"], n: int) -> Int64[np.ndarray, " n"]:
    """Tokens of each text's longest stretch all of whose n-grams are hits; 0 where there is none."""
    places = np.arange(hits.shape[1])
    missed = np.maximum.accumulate(np.where(hits, -1, places), axis=1)
    run = (places - missed).max(1)
    return np.where(run > 0, run + n - 1, 0)


class Judge:
    """Two n-gram models, each of one half of a held-out text: neither has seen the samples, nor the other half."""

    def __init__(self, held: Shaped[Tensor, " length"], vocabulary: int) -> None:
        cut = len(held) // 2
        self.halves = held[:cut], held[cut:]
        self._models = [NGram(half[:LEARNED], vocabulary, ORDER) for half in self.halves]

    def loss(self, texts: Int64[Tensor, "n time"]) -> Float[np.ndarray, " n"]:
        """Nats per token of each text, the mean under both models."""
        return np.mean([self._loss(i, texts) for i in (0, 1)], axis=0)

    def own(self, window: int, n: int) -> Float[np.ndarray, " n"]:
        """Nats per token of n windows of the held-out text, each under the model of the half that it is not in."""
        found = []
        for i, half in enumerate(self.halves):
            split = Split(half, tokens=True)
            positions = split.positions(window, shuffle=0)[: n // 2]
            found.append(self._loss(1 - i, split.batch(positions, window=window).x))
        return np.concatenate(found)

    def _loss(self, i: int, texts: Tensor) -> np.ndarray:
        return -self._models[i].log_prob(texts, ORDER).numpy() / texts.shape[1]


class _Texts(NamedTuple):
    drawn: np.ndarray
    real: np.ndarray
    other: np.ndarray
    bigram: np.ndarray


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """Texts of one window each; nothing where the held-out text has fewer than four windows."""
    window = subject.model.window
    if window is None or len(subject.held) < (ENOUGH + 1) * window or subject.n < ENOUGH:
        return
    texts = _Texts(*(x.cpu().numpy() for x in (subject.drawn, subject.real.x, subject.other.x, subject.bigram_texts)))
    yield from (_divergence(texts, n) for n in LENGTHS if n <= window)
    yield from (_distinct(texts, n) for n in DISTINCT if n <= window)
    yield from _repetition(texts, min(PASSAGE, window))
    yield _loss(subject, window)
    yield from _copies(subject, texts)


def _divergence(texts: _Texts, n: int) -> Row:
    hashes = [grams(x, n) for x in texts]
    # Numbers of different n-grams, so that tables of counts are quick to make for any subset of the texts.
    names, place = np.unique(np.concatenate(hashes), return_inverse=True)
    drawn, real, other, bigram = np.split(place.reshape(-1, hashes[0].shape[1]), np.cumsum([len(x) for x in texts])[:-1])

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return jensen_shannon(*(np.bincount(x.ravel(), minlength=len(names)).astype(np.float64) for x in (a, b)))

    spread = intervals.distance(distance, real, drawn, other)
    return Row(
        about="samples", name=f"divergence of {n}-grams", unit=f"nats, at most {math.log(2):.2f}", model=distance(real, drawn),
        error=spread.error, draws=spread.draws, baselines={"bigram": distance(real, bigram)}, n=len(drawn), floor=spread.floor,
        note=f"Jensen-Shannon; biased upwards at n = {len(drawn):,} texts of {texts.drawn.shape[1]:,}, as the floor shows; "
        f"training text: {distance(real, other):.4g}",
    )  # fmt: skip


def _distinct(texts: _Texts, n: int) -> Row:
    drawn, real, _, bigram = (grams(x, n) for x in texts)
    halves = np.array([distinct(drawn[rows]) for rows, _ in intervals.halves(len(drawn), len(drawn), intervals.ROUNDS)])
    draws = Draws("subsets", halves)
    return Row(
        about="samples", name=f"different {n}-grams", unit="share of all", model=distinct(drawn), error=draws.error(), draws=draws,
        baselines={"bigram": distinct(bigram)}, n=len(drawn), better="floor", floor=distinct(real),
        note=f"falls with the number of texts: compare at n = {len(drawn):,}",
    )  # fmt: skip


def _repetition(texts: _Texts, n: int) -> Iterator[Row | Flag]:
    drawn, real, _, bigram = (grams(x, n) for x in texts)
    for of, where, what in ((overlap, "in another sample", "each other"), (repeated, "earlier in the same sample", "themselves")):
        mine, theirs = of(drawn), of(real)
        row = _share(f"{n}-grams that are {where}", "samples", mine, theirs, {"bigram": float(of(bigram).mean())})
        yield row
        if _exceeds(mine, theirs):
            yield Flag(
                check="repetition",
                sentence=f"samples repeat {what}: {row.model:.0%} of their passages of {n} tokens are {where}, {row.floor:.0%} of real "
                "text's; draw with a higher temperature, or train longer or with more data",
            )


def _share(name: str, about: str, mine: np.ndarray, theirs: np.ndarray, trivial: dict[str, float], note: str = "") -> Row:
    """A share of each text, beside that of held-out text."""
    value, error, draws = mean(mine)
    return Row(
        about=about, name=name, unit="share", model=value, error=error, draws=draws, n=len(mine), baselines=trivial,  # type: ignore[arg-type]
        better="floor", floor=float(theirs.mean()), note=note,
    )  # fmt: skip


def _exceeds(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the mean of `mine` is above that of `theirs` by more than the margin and chance."""
    (value, error, _), (real, spread, _) = mean(mine), mean(theirs)
    return value - real > MARGIN + 2 * math.hypot(error or 0, spread or 0)


def _loss(subject: "Subject", window: int) -> Row:
    judge = Judge(subject.held.x, subject.model.spec.vocabulary)
    value, error, draws = mean(judge.loss(subject.drawn))
    real = judge.own(window, subject.n)
    return Row(
        about="samples", name="loss under a held-out n-gram", unit="nats per token", model=value, error=error, draws=draws,
        baselines={"bigram": float(judge.loss(subject.bigram_texts).mean())}, n=subject.n, better="floor", floor=float(real.mean()),
        note=f"order {ORDER}, of each half of the held-out text; real: each half under the n-gram of the other; "
        f"training text: {float(judge.loss(subject.other.x).mean()):.4g}",
    )  # fmt: skip


def _copies(subject: "Subject", texts: _Texts) -> Iterator[Row | Flag]:
    corpus = subject.train.train.x if subject.full else subject.train.train.x[:SEARCHED]
    searched = "" if len(corpus) == len(subject.train.train) else f"; sought in the first {len(corpus):,} tokens of training"
    n = telling_length(texts.real, corpus)
    together = np.concatenate((texts.drawn, texts.real, texts.bigram))
    hits = np.split(occurs(together, corpus, n), np.cumsum([len(texts.drawn), len(texts.real)]))
    mine, theirs, trivial = (found.mean(1) for found in hits)
    row = _share(
        f"{n}-grams copied from training", "memorisation", mine, theirs, {"bigram": float(trivial.mean())}, f"real: held-out text{searched}"
    )
    yield row
    runs, real, bigram = (longest_run(found, n) for found in hits)
    value, error, draws = mean(runs)
    stretch = Row(
        about="memorisation", name="longest copied run, mean", unit="tokens", model=value, error=error, draws=draws, n=len(runs),
        baselines={"bigram": float(bigram.mean())}, better="floor", floor=float(real.mean()),
        note=f"all of its {n}-grams occur in training, 0 where shorter; a text has {texts.drawn.shape[1]:,} tokens",
    )  # fmt: skip
    yield stretch
    yield Row(
        about="memorisation", name="longest copied run, of all texts", unit="tokens", model=float(runs.max()), error=None, n=len(runs),
        baselines={"bigram": float(bigram.max())}, better="floor", floor=float(real.max()),
    )  # fmt: skip
    if _exceeds(mine, theirs):
        yield Flag(
            check="memorisation",
            sentence=f"samples are copied from training: {row.model:.0%} of their passages of {n} tokens occur there, {row.floor:.0%} of "
            "held-out text's; train shorter, on more data or with more dropout",
        )
