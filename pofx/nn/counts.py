"""How often each n-gram of a text occurs: a tree of n-grams in sorted arrays, which grows with a text that comes in pieces."""

from typing import NamedTuple

import torch
from jaxtyping import Int64, Integer
from torch import Tensor, nn


class Level(NamedTuple):
    """The different n-grams of one length.

    codes: rising; each is the place of its first n - 1 tokens among the shorter n-grams, times the vocabulary, plus its last token.
    counts: how often each occurs.
    first: where the n-grams begin that go on from each shorter one, and where the last of them end.
    """

    codes: Int64[Tensor, " ngrams"]
    counts: Int64[Tensor, " ngrams"]
    first: Int64[Tensor, " contexts"]


def look_up(codes: Int64[Tensor, " ngrams"], sought: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """The place of each code among rising ones, -1 where it is not there; a negative code never is."""
    if not len(codes):
        return torch.full_like(sought, -1)
    place = torch.searchsorted(codes, sought).clamp_(max=len(codes) - 1)
    return place.masked_fill_(codes[place] != sought, -1)


class Counts(nn.Module):
    """Counts of the n-grams of 1 to `order` tokens from 0 to vocabulary - 1.

    Only what cannot be computed again is kept: which n-grams there are, and how often the longest ones occur. A shorter one occurs as
    often as all that continue it, and once more where the text ends.

    Raises `ValueError` for an order or a vocabulary below 1.
    """

    resizable = frozenset({"codes", "counts", "tail"})

    def __init__(self, vocabulary: int, order: int) -> None:
        super().__init__()
        if vocabulary < 1 or order < 1:
            raise ValueError(f"n-grams have 1 token or more of 1 symbol or more, not {order} of {vocabulary}")
        self.vocabulary, self.order = vocabulary, order
        # Codes of 2 tokens, of 3, ... one after the other, and how many there are of each length from 1 on.
        self.register_buffer("codes", torch.empty(0, dtype=torch.int64))
        self.register_buffer("sizes", torch.tensor([vocabulary, *[0] * (order - 1)]))
        # Of the longest n-grams.
        self.register_buffer("counts", torch.zeros(vocabulary if order == 1 else 0, dtype=torch.int64))
        # The last order - 1 tokens, with which the next ones form n-grams.
        self.register_buffer("tail", torch.empty(0, dtype=torch.int64))

    def _codes(self) -> list[Int64[Tensor, " ngrams"]]:
        """The codes of each length; those of one token are the tokens."""
        return [torch.arange(self.vocabulary, device=self.codes.device), *self.codes.split(self.sizes[1:].tolist())]

    def add(self, tokens: Integer[Tensor, " length"]) -> None:
        """Counts the n-grams that the next tokens of the text complete."""
        text = torch.cat((self.tail, tokens.to(self.tail)))
        levels = self._codes()
        # Where the tokens of the text are among those of one length, and where the old n-grams of it have gone.
        place, moved, kept = text, levels[0], []
        for length in range(2, self.order + 1):
            old = moved[levels[length - 1] // self.vocabulary] * self.vocabulary + levels[length - 1] % self.vocabulary
            found, which = (place[:-1] * self.vocabulary + text[length - 1 :]).unique(return_inverse=True)
            codes = torch.cat((old, found)).unique()
            place, moved = torch.searchsorted(codes, found)[which], torch.searchsorted(codes, old)
            kept.append(codes)
        new = place.bincount(minlength=len(kept[-1]) if kept else self.vocabulary)
        self.counts = new.index_add_(0, moved, self.counts)
        self.codes = torch.cat([self.codes[:0], *kept])
        self.sizes = torch.tensor([self.vocabulary, *map(len, kept)], device=self.sizes.device)
        self.tail = text[max(0, len(text) - self.order + 1) :].clone()

    def levels(self) -> list[Level]:
        """What is known of the n-grams of each length, from 1 to the order."""
        found: list[Level] = []
        codes = self._codes()
        last = [place[-1:] for place in self.places(self.tail)]
        counts = self.counts
        for length in range(self.order, 0, -1):
            contexts = len(codes[length - 2]) if length > 1 else 1
            parent = codes[length - 1] // self.vocabulary
            first = torch.searchsorted(parent, torch.arange(contexts + 1, device=parent.device))
            found.append(Level(codes[length - 1], counts, first))
            if length > 1:
                running = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
                counts = running[first[1:]] - running[first[:-1]]
                counts[last[length - 2]] += 1
        return found[::-1]

    def places(self, tokens: Int64[Tensor, "*batch time"]) -> list[Int64[Tensor, "*batch places"]]:
        """The place of each token, pair, ... of the text among the n-grams of its length, -1 where it does not occur."""
        found = [tokens]
        for length, codes in enumerate(self._codes()[1:], 2):
            before = found[-1][..., :-1]
            code = (before * self.vocabulary + tokens[..., length - 1 :]).masked_fill(before < 0, -1)
            found.append(look_up(codes, code))
        return found

    def suffixes(self) -> list[Int64[Tensor, " ngrams"]]:
        """For each length from 2 on, the place of each n-gram without its first token among the shorter ones."""
        codes = self._codes()
        found: list[Tensor] = []
        for length in range(2, self.order + 1):
            here, last = codes[length - 1], codes[length - 1] % self.vocabulary
            found.append(last if length == 2 else look_up(codes[length - 2], found[-1][here // self.vocabulary] * self.vocabulary + last))
        return found
