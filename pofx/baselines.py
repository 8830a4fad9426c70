"""Trivial models, fitted to the training part: what any model must beat. Each gives log-probabilities of a batch."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from pofx import discovery
from pofx.core import DataSpec, mix
from pofx.data.dataset import Split

#: From examples as a model sees them to log p of each in nats.
Baseline = Callable[[Tensor], Float[Tensor, " batch"]]
#: Tokens counted, and examples read, at once.
PART, ROWS = 1 << 22, 512
#: Tokens from which an n-gram of more than two of them learns, and numbers of images that a context coder counts, at most.
COUNTED = 1 << 24
#: Numbers of the training part that a Gaussian is fitted to, at most.
ELEMENTS = 1 << 26
LEVELS = 256
#: Neighbours of a pixel, nearest first, as rows up and columns to the left.
NEIGHBOURS = (
    (0, 1),
    (1, 0),
    (1, 1),
    (1, -1),
    (0, 2),
    (2, 0),
    (1, 2),
    (1, -2),
    (2, 1),
    (2, -1),
    (0, 3),
    (3, 0),
    (2, 2),
    (2, -2),
    (1, 3),
    (1, -3),
)
#: For each context, from the shortest on, so many bits of each neighbour.
CONTEXTS = {2: ((1,) * 4, (1,) * 10, (1,) * 16), LEVELS: ((4, 4), (5, 5, 4))}


def fit(space: str, spec: DataSpec, train: Split) -> dict[str, Baseline]:
    """The baselines of a likelihood space (tokens, 8-bit, binary, density), each under its name."""
    if space == "tokens":
        pairs = NGram(train.x, spec.vocabulary)
        return {"unigram": pairs.unigram, "bigram": pairs.bigram, "n-gram": longer(spec, train)}
    if space == "8-bit":
        return {"histogram per pixel": histogram(train, LEVELS), "context coder": ContextCoder(train, LEVELS).log_prob}
    if space == "binary":
        return {"bernoulli per pixel": histogram(train, 2), "context coder": ContextCoder(train, 2).log_prob}
    return {"independent columns": columns(spec, train)} if spec.columns else {"gaussian": gaussian(train)}


class _Level(NamedTuple):
    """n-grams of one length. codes: sorted, each the number of its first n - 1 tokens among the shorter n-grams, times
    the vocabulary, plus its last token. counts: of each. followed, different: tokens, and different ones, after each
    shorter n-gram."""

    codes: np.ndarray
    counts: np.ndarray
    followed: np.ndarray
    different: np.ndarray


class NGram:
    """Frequencies of tokens, of pairs of tokens, and of n-grams up to `order`, each smoothed by the next shorter ones.

    unigram: (count(w) + 1) / (n + vocabulary). With T(c) different tokens seen after a context c, and c' that context
    without its first token: p(w | c) = (count(c w) + T(c) p(w | c')) / (count(c) + T(c)). The first tokens of a window
    have as much context as there is.

    References:
        The Zero-Frequency Problem: Estimating the Probabilities of Novel Events in Adaptive Text Compression
        (Witten and Bell, 1991), https://doi.org/10.1109/18.87000
    """

    def __init__(self, text: Int[Tensor, " length"], vocabulary: int, order: int = 2) -> None:
        self.vocabulary = vocabulary
        single = np.zeros(vocabulary)
        for start in range(0, len(text), PART):
            single += np.bincount(text[start : start + PART].numpy(), minlength=vocabulary)
        self._single = (single + 1) / (len(text) + vocabulary)
        self._levels: list[_Level] = []
        for length in range(2, order + 1):
            self._levels.append(self._count(text, length))

    def _count(self, text: Tensor, length: int) -> _Level:
        codes, counts = np.empty(0, np.int64), np.empty(0)
        for start in range(0, len(text) - length + 1, PART):
            # Some tokens more, so that n-grams across the border are counted.
            part = text[start : start + PART + length - 1].numpy().astype(np.int64)
            found, often = np.unique(self._codes(self._places(part)[-1], part), return_counts=True)
            codes, place = np.unique(np.concatenate([codes, found]), return_inverse=True)
            counts = np.bincount(place, weights=np.concatenate([counts, often]), minlength=len(codes))
        context, contexts = codes // self.vocabulary, len(self._levels[-1].codes) if self._levels else self.vocabulary
        return _Level(codes, counts, np.bincount(context, counts, contexts), np.bincount(context, minlength=contexts))

    def _codes(self, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Codes of the n-grams that begin with the shorter ones at `places` and go on with the next token."""
        length = tokens.shape[-1] - places.shape[-1] + 1
        return places[..., :-1] * self.vocabulary + tokens[..., length:]

    def _places(self, tokens: Int64[np.ndarray, "... time"]) -> list[np.ndarray]:
        """The number of each token, pair, ... among those of its length, -1 where training had none."""
        found = [tokens]
        for level in self._levels:
            # A context that training had not gives a negative code, which is not found either.
            code = self._codes(found[-1], tokens)
            place = np.searchsorted(level.codes, code).clip(max=max(0, len(level.codes) - 1))
            found.append(np.where(level.codes[place] == code, place, -1) if len(level.codes) else np.full_like(code, -1))
        return found

    def log_prob(self, x: Int[Tensor, "batch time"], order: int) -> Float[Tensor, " batch"]:
        """log p of each window, each token given the order - 1 before it."""
        tokens = x.cpu().numpy().astype(np.int64)
        places = self._places(tokens)
        p = self._single[tokens]
        for length, level in enumerate(self._levels[: order - 1], 2):
            context, place = places[length - 2][:, :-1], places[length - 1]
            known = context >= 0
            count = np.where(place >= 0, level.counts[place], 0) if len(level.codes) else np.zeros(place.shape)
            followed, different = (np.where(known, value[context], 0) for value in (level.followed, level.different))
            # A context that was never followed by anything says nothing about what follows.
            weight = np.where(different > 0, different, 1)
            p[:, length - 1 :] = (count + weight * p[:, length - 1 :]) / (followed + weight)
        return torch.from_numpy(np.log(p).sum(1))

    def unigram(self, x: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
        """log p of each window, its tokens independent."""
        return self.log_prob(x, 1)

    def bigram(self, x: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
        """log p of each window, each token given the one before it."""
        return self.log_prob(x, 2)

    def sample(self, n: int, length: int, *, seed: int = 0) -> Int64[Tensor, "n length"]:
        """n texts of the bigram, a function of the seed."""
        random, pairs = np.random.default_rng(mix(seed, "texts of a bigram")), self._levels[0]
        below, single = np.concatenate(([0.0], pairs.counts.cumsum())), self._single.cumsum()
        # Where the pairs of each first token begin.
        first = np.searchsorted(pairs.codes, np.arange(self.vocabulary) * self.vocabulary)
        texts = np.empty((n, length), np.int64)
        for i in range(length):
            chance, place = random.random((2, n))
            texts[:, i] = np.searchsorted(single, place * single[-1], side="right")
            if i:
                before = texts[:, i - 1]
                followed, different = pairs.followed[before], pairs.different[before]
                seen = chance * (followed + different) < followed
                pair = np.searchsorted(below, below[first[before]] + place * followed, side="right") - 1
                texts[seen, i] = pairs.codes[pair[seen]] % self.vocabulary
        return torch.from_numpy(texts)


def longer(spec: DataSpec, train: Split) -> Baseline:
    """The n-gram that its own recipe makes of a text, of which it reads at most 16 million tokens."""
    cls = discovery.model("ngram")
    recipe = cls.recipe(spec, None)
    model: Any = cls(spec, recipe.config)
    size = min(recipe.batch_size, COUNTED // model.window)
    model.fit(train.batches(size, window=model.window, limit=COUNTED // model.window))
    return lambda x: model.log_prob(x.cpu()).nats


def histogram(train: Split, levels: int) -> Baseline:
    """Each pixel by itself: (count of its level + 1) / (n + levels)."""
    shape = train.x.shape[1:]
    first = torch.arange(math.prod(shape)) * levels

    def places(x: Tensor) -> Tensor:
        return first + (x.cpu().flatten(1) * (levels - 1)).round().to(torch.int64)

    counts = torch.ones(len(first) * levels, dtype=torch.float64)
    for batch in train.batches(ROWS):
        counts += torch.bincount(places(batch.x).flatten(), minlength=len(counts))
    log_p = (counts / (len(train) + levels)).log()
    return lambda x: log_p[places(x)].sum(1)


class ContextCoder:
    """Frequencies of a pixel's levels in contexts of its neighbours above and to the left, each smoothed by those in the next shorter one.

    p(x | c) = (count(c x) + T(c) p(x | c')) / (count(c) + T(c)) with T(c) different levels seen in the context c, and c' the shorter
    one; the shortest has no neighbours, and behind it all levels are equally likely. A context has the leading bits of some of
    `NEIGHBOURS` (all that a binary pixel has); of a later channel the third one is the same pixel in the channel before.

    References:
        The Zero-Frequency Problem: Estimating the Probabilities of Novel Events in Adaptive Text Compression
        (Witten and Bell, 1991), https://doi.org/10.1109/18.87000
    """

    def __init__(self, train: Split, levels: int) -> None:
        self.levels, channels = levels, train.x.shape[1]
        sizes = [channels * 2 ** sum(bits) * levels for bits in ((), *CONTEXTS[levels])]
        self._counts = [np.zeros(size) for size in sizes]
        for batch in train.batches(ROWS, limit=max(1, COUNTED // math.prod(train.x.shape[1:]))):
            for counts, place in zip(self._counts, self._places(batch.x), strict=True):
                counts += np.bincount(place, minlength=len(counts))
        self._followed = [counts.reshape(-1, levels).sum(1) for counts in self._counts]
        self._different = [(counts.reshape(-1, levels) > 0).sum(1) for counts in self._counts]

    def _places(self, x: Float[Tensor, "batch channels height width"]) -> Iterator[Int64[np.ndarray, " pixels"]]:
        """For each context the number of that of every pixel, times levels, plus the pixel's own."""
        level = (x.cpu() * (self.levels - 1)).round().to(torch.int64).numpy()
        _, channels, height, width = level.shape
        reach, whole = 3, int(math.log2(self.levels))
        padded = np.pad(level, ((0, 0), (0, 0), (reach, 0), (reach, reach)))
        for bits in ((), *CONTEXTS[self.levels]):
            context = np.broadcast_to(np.arange(channels)[:, None, None], level.shape)
            for i, (kept, (up, left)) in enumerate(zip(bits, NEIGHBOURS, strict=False)):
                near = padded[:, :, reach - up : reach - up + height, reach - left : reach - left + width]
                if i == 2 and channels > 1:
                    near = np.concatenate((near[:, :1], level[:, :-1]), 1)
                context = (context << kept) | (near >> (whole - kept))
            yield (context * self.levels + level).reshape(-1)

    def log_prob(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """log p of each image."""
        p = np.full(x.numel(), 1 / self.levels)
        for place, counts, followed, different in zip(self._places(x), self._counts, self._followed, self._different, strict=True):
            context = place // self.levels
            # A context that was never met says nothing.
            weight = np.maximum(different[context], 1)
            p = (counts[place] + weight * p) / (followed[context] + weight)
        return torch.from_numpy(np.log(p).reshape(len(x), -1).sum(1))


def _rows(train: Split) -> Iterator[Tensor]:
    limit = max(2, ELEMENTS // math.prod(train.x.shape[1:]))
    return (batch.x.cpu().flatten(1) for batch in train.batches(ROWS, limit=limit))


def gaussian(train: Split) -> Baseline:
    """One Gaussian with a full covariance, which is shrunk as far as few examples ask for, in the units of the model.

    References:
        A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices (Ledoit and Wolf, 2004),
        https://doi.org/10.1016/S0047-259X(03)00096-4
    """
    from sklearn.covariance import ledoit_wolf

    rows = torch.cat(list(_rows(train))).to(torch.float64)
    covariance = torch.from_numpy(ledoit_wolf(rows.numpy())[0])
    # Keeps features that never change from having an infinite density.
    covariance += 1e-6 * torch.eye(len(covariance))
    distribution = torch.distributions.MultivariateNormal(rows.mean(0), covariance)
    return lambda x: distribution.log_prob(x.cpu().flatten(1).to(torch.float64))


def columns(spec: DataSpec, train: Split) -> Baseline:
    """Each column of a table by itself: numbers that are there Gaussian, categories and missing indicators by frequency."""
    rows = torch.cat(list(_rows(train))).to(torch.float64)
    indicators = {column.name: column.start for column in spec.columns if column.kind == "missing"}

    def present(x: Shaped[Tensor, "batch features"], name: str) -> Tensor:
        return 1 - x[:, indicators[name]] if name in indicators else torch.ones_like(x[:, 0])

    scorers: list[Baseline] = []
    for column in spec.columns:
        part = slice(column.start, column.stop)
        if column.kind in ("number", "integer"):
            known = rows[present(rows, column.name) > 0, column.start]
            scale = known.std(correction=0).clamp(min=1e-3) if len(known) else torch.tensor(1.0, dtype=torch.float64)
            normal = torch.distributions.Normal(known.mean() if len(known) else 0.0, scale)
            scorers.append(lambda x, c=column, normal=normal: present(x, c.name) * normal.log_prob(x[:, c.start]))
            continue
        values = rows[:, part] if column.kind == "category" else torch.cat((rows[:, part], 1 - rows[:, part]), 1)
        log_p = ((values.sum(0) + 1) / (len(rows) + values.shape[1])).log()
        if column.kind == "category":
            scorers.append(lambda x, part=part, log_p=log_p: x[:, part] @ log_p)
        else:
            scorers.append(lambda x, c=column, log_p=log_p: torch.where(x[:, c.start] > 0.5, log_p[0], log_p[1]))
    return lambda x: torch.stack([score(x.cpu().to(torch.float64)) for score in scorers]).sum(0)
