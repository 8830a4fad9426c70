"""Modified Kneser-Ney smoothing: the next token's distribution from counts of n-grams, summing to one in every context."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from pofx.nn.counts import Counts

LEAST, FALLBACK = 0.05, (0.5, 1.0, 1.5)
"""The least discount, without which a context could leave nothing for what it was never followed by; and discounts where too few
n-grams of a length occur once, twice, ... to estimate them."""


def discounts(counts: Int64[Tensor, " ngrams"]) -> Float[Tensor, "4"]:
    """What is taken from n-grams that occur 0, 1, 2, 3 or more times: with n_k n-grams that occur k times and Y = n_1 / (n_1 + 2 n_2),
    D_k = k - (k + 1) Y n_(k+1) / n_k."""
    n = counts.clamp(max=5).bincount(minlength=6)[1:5].double()
    if bool((n == 0).any()):
        return counts.new_tensor((0.0, *FALLBACK), dtype=torch.float64)
    k = torch.arange(1, 4, device=n.device)
    return torch.cat((n.new_zeros(1), (k - (k + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:-1]).clamp(min=LEAST)))


def _at(values: Float[Tensor, " some"], place: Int64[Tensor, "*shape"], otherwise: float) -> Float[Tensor, "*shape"]:
    """The values at places, and `otherwise` where a place is negative."""
    if not len(values):
        return torch.full_like(place, otherwise, dtype=values.dtype)
    return values[place.clamp(min=0)].masked_fill(place < 0, otherwise)


class Weights(NamedTuple):
    """p(w|c) = own(c w) + left(c) p(w|c'), where c' is the context c without its first token."""

    own: Float[Tensor, " ngrams"]
    left: Float[Tensor, " contexts"]

    def after(self, context: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """left(c), which is 1 where the text has no such context."""
        return _at(self.left, context, 1.0)

    def of(self, place: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """own(c w), which is 0 where the text has no such n-gram."""
        return _at(self.own, place, 0.0)


def weigh(counts: Int64[Tensor, " ngrams"], first: Int64[Tensor, " contexts"]) -> Weights:
    """Discounted frequencies after each context, whose n-grams begin at `first`, and what the discounts leave over."""
    discount = discounts(counts)[counts.clamp(max=3)]

    def summed(values: Tensor) -> Tensor:
        running = torch.cat((values.new_zeros(1), values.cumsum(0)))
        return running[first[1:]] - running[first[:-1]]

    total = summed(counts)
    # The discounts of each context are few numbers, summed apart from one another so that no rounding error builds up.
    taken = torch.zeros(len(total), dtype=torch.float64, device=counts.device)
    context = torch.repeat_interleave(first.diff())
    taken.index_add_(0, context, discount)
    own = (counts - discount) / total[context].clamp(min=1)
    return Weights(own, torch.where(total > 0, taken / total.clamp(min=1), 1.0))


class Table(NamedTuple):
    """The n-grams of one length. inner: weights of them below longer ones, outer: of those that nothing longer stands above."""

    codes: Int64[Tensor, " ngrams"]
    first: Int64[Tensor, " contexts"]
    inner: Weights
    outer: Weights


class KneserNey(nn.Module):
    """p(w | the order - 1 tokens before it), interpolated with those of all shorter contexts.

    p(w|c) = (n(c w) - D(n(c w))) / n(c) + left(c) p(w|c'), down to 1 / vocabulary. For contexts of order - 1 tokens n counts
    occurrences, for the shorter ones below it different tokens to the left. The first tokens of a text have shorter contexts, whose n
    counts occurrences as well. What was never read is uniform.

    References:
        An Empirical Study of Smoothing Techniques for Language Modeling (Chen and Goodman, 1999),
        https://doi.org/10.1006/csla.1999.0128
    """

    resizable = frozenset(f"counts.{name}" for name in Counts.resizable)

    def __init__(self, vocabulary: int, order: int) -> None:
        super().__init__()
        self.counts = Counts(vocabulary, order)
        self._made: tuple[list[Tensor], list[int], list[Table]] | None = None

    @property
    def vocabulary(self) -> int:
        """The number of symbols."""
        return self.counts.vocabulary

    @property
    def order(self) -> int:
        """The most tokens of an n-gram."""
        return self.counts.order

    def add(self, tokens: Integer[Tensor, " length"]) -> None:
        """Learns from the next tokens of the text."""
        self.counts.add(tokens)

    @property
    def tables(self) -> list[Table]:
        """The weights of each length, made anew whenever the counts have changed."""
        buffers = list(self.counts.buffers())
        # Tensors that are still the same, and that nothing has been written to.
        versions = [buffer._version for buffer in buffers]
        if self._made is None or self._made[1] != versions or any(a is not b for a, b in zip(self._made[0], buffers, strict=True)):
            self._made = (buffers, versions, self._make())
        return self._made[2]

    def _make(self) -> list[Table]:
        levels = self.counts.levels()
        tables = []
        for level, longer in zip(levels, [*self.counts.suffixes(), None], strict=True):
            outer = weigh(level.counts, level.first)
            # A token at the very beginning of the text stands after nothing, and may have no left neighbour.
            inner = outer if longer is None else weigh(longer.bincount(minlength=len(level.codes)), level.first)
            tables.append(Table(level.codes, level.first, inner, outer))
        return tables

    def probabilities(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        """p of each token given those before it, in float64."""
        places = self.counts.places(x)
        p = torch.full(x.shape, 1 / self.vocabulary, dtype=torch.float64, device=x.device)
        found = p.clone()
        for length, (table, place) in enumerate(zip(self.tables, places, strict=True), 1):
            if place.shape[-1] == 0:
                break
            context = places[length - 2][:, :-1] if length > 1 else torch.zeros_like(x)
            shorter = p[:, length - 1 :]
            found[:, length - 1] = table.outer.of(place[:, 0]) + table.outer.after(context[:, 0]) * shorter[:, 0]
            p = torch.cat((p[:, : length - 1], table.inner.of(place) + table.inner.after(context) * shorter), 1)
        found[:, self.order - 1 :] = p[:, self.order - 1 :]
        return found

    def distribution(self, context: Int64[Tensor, "n time"]) -> Float[Tensor, "n vocabulary"]:
        """p of every token after each context, of which the last order - 1 tokens count, in float64."""
        context = context[:, max(0, context.shape[1] - self.order + 1) :]
        known, tables = context.shape[1], self.tables
        places = self.counts.places(context)
        p = torch.full((len(context), self.vocabulary), 1 / self.vocabulary, dtype=torch.float64, device=context.device)
        for length, table in enumerate(tables[: known + 1], 1):
            place = places[length - 2][:, -1] if length > 1 else torch.zeros(len(context), dtype=torch.int64, device=context.device)
            weights = table.outer if length == known + 1 else table.inner
            p *= weights.after(place)[:, None]
            rows = (place >= 0).nonzero()[:, 0]
            start, stop = table.first[place[rows]], table.first[place[rows] + 1]
            # The n-grams that go on from each row's context, all in one row.
            many = stop - start
            which = torch.arange(int(many.sum()), device=p.device) + (start - many.cumsum(0) + many).repeat_interleave(many)
            p.index_put_((rows.repeat_interleave(many), table.codes[which] % self.vocabulary), weights.own[which], accumulate=True)
        return p
