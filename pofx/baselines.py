"""Trivial models, fitted to the training part: what any model must beat. Each gives log-probabilities of a batch."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pofx.core import DataSpec
from pofx.data.dataset import Split

#: From examples as a model sees them to log p of each in nats.
Baseline = Callable[[Tensor], Float[Tensor, " batch"]]
#: Tokens counted, and examples read, at once.
PART, ROWS = 1 << 22, 512
#: Numbers of the training part that a Gaussian is fitted to, at most.
ELEMENTS = 1 << 26
LEVELS = 256


def fit(space: str, spec: DataSpec, train: Split) -> dict[str, Baseline]:
    """The baselines of a likelihood space (tokens, 8-bit, binary, density), each under its name."""
    if space == "tokens":
        ngram = NGram(train.x, spec.vocabulary)
        return {"unigram": ngram.unigram, "bigram": ngram.bigram}
    if space == "8-bit":
        return {"histogram per pixel": histogram(train, LEVELS)}
    if space == "binary":
        return {"bernoulli per pixel": histogram(train, 2)}
    return {"independent columns": columns(spec, train)} if spec.columns else {"gaussian": gaussian(train)}


class NGram:
    """Frequencies of tokens and of pairs of tokens.

    unigram: (count(w) + 1) / (n + vocabulary). bigram, with T(c) different tokens seen after c:
    (count(c w) + T(c) unigram(w)) / (count(c) + T(c)); the first token of a window, which has no context, by the unigram.

    References:
        The Zero-Frequency Problem: Estimating the Probabilities of Novel Events in Adaptive Text Compression
        (Witten and Bell, 1991), https://doi.org/10.1109/18.87000
    """

    def __init__(self, text: Int[Tensor, " length"], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        single = np.zeros(vocabulary)
        self._pairs, self._counts = np.empty(0, np.int64), np.empty(0)
        for start in range(0, len(text), PART):
            # One token more, so that the pair across the border is counted.
            part = text[start : start + PART + 1].numpy().astype(np.int64)
            single += np.bincount(part[:PART], minlength=vocabulary)
            pairs, counts = np.unique(part[:-1] * vocabulary + part[1:], return_counts=True)
            self._pairs, place = np.unique(np.concatenate([self._pairs, pairs]), return_inverse=True)
            self._counts = np.bincount(place, weights=np.concatenate([self._counts, counts]), minlength=len(self._pairs))
        self._single = (single + 1) / (len(text) + vocabulary)
        context = self._pairs // vocabulary
        self._followed = np.bincount(context, weights=self._counts, minlength=vocabulary)
        self._different = np.bincount(context, minlength=vocabulary)

    def unigram(self, x: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
        """log p of each window, its tokens independent."""
        return torch.from_numpy(np.log(self._single)[x.cpu().numpy()].sum(1))

    def bigram(self, x: Int[Tensor, "batch time"]) -> Float[Tensor, " batch"]:
        """log p of each window, each token given the one before it."""
        tokens = x.cpu().numpy().astype(np.int64)
        before, after = tokens[:, :-1], tokens[:, 1:]
        pair = before * self.vocabulary + after
        place = np.searchsorted(self._pairs, pair).clip(max=max(0, len(self._pairs) - 1))
        count = np.where(self._pairs[place] == pair, self._counts[place], 0) if len(self._pairs) else np.zeros(pair.shape)
        different = self._different[before]
        # A token that was never followed by anything says nothing about what follows.
        weight = np.where(different > 0, different, 1)
        p = (count + weight * self._single[after]) / (self._followed[before] + weight)
        return torch.from_numpy(np.log(self._single[tokens[:, 0]]) + np.log(p).sum(1))


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
