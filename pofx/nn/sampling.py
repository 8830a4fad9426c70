"""Writing texts symbol by symbol: the knobs that all models of tokens share, and the loop in which they write.

A model gives a *reader*: from the tokens x of n texts to a function that tells, for rising positions, the logits of what stands
there given what stands to the left of it in x at the time of the call. Between two calls it may remember what it likes.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pofx import core
from pofx.core import Fraction, Noise, NonNegative, Positive, PositiveFloat, UsageError

Read = Callable[[int], Float[Tensor, "n vocabulary"]]
"""The logits of a position, given what stands to its left."""
Reader = Callable[[Int64[Tensor, "n time"]], Read]
"""How a model reads texts that are being written."""
Stop = Callable[[Int64[Tensor, " new"]], bool]
"""Whether a text ends with the last of its new tokens."""
Watch = Callable[[Int64[Tensor, " n"]], None]
"""Is told the new token of every text."""
NOTHING = -1
"""Stands behind the last token of a text that has ended before the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice(core.Config):
    """How the next token is drawn from its distribution: all tokens by their probability, unless a knob says otherwise.

    The knobs act in this order: what was said before is made less likely or impossible, probabilities are sharpened by the
    temperature, then the k likeliest are kept, and of these the fewest that have a share p of the probability.

    Raises `UsageError` for a value out of its range.

    References:
        CTRL: A Conditional Transformer Language Model for Controllable Generation (Keskar et al., 2019), section 4.1
            (repetition penalty), https://arxiv.org/abs/1909.05858
        A Deep Reinforced Model for Abstractive Summarization (Paulus et al., 2018), section 2.5 (no n-gram twice),
            https://arxiv.org/abs/1705.04304
        Hierarchical Neural Story Generation (Fan et al., 2018), section 5.4 (top-k), https://arxiv.org/abs/1805.04833
        The Curious Case of Neural Text Degeneration (Holtzman et al., 2020), section 3.1 (top-p), https://arxiv.org/abs/1904.09751
    """

    temperature: NonNegative = 1.0
    """Divides the logits: below 1 prefers likely tokens; 0 takes the likeliest, and no random number."""
    top_k: Positive | None = None
    """Draw among the k likeliest tokens only."""
    top_p: Fraction | None = None
    """Draw among the fewest of the likeliest tokens that have this probability together."""
    repetition_penalty: PositiveFloat = 1.0
    """Multiplies the log-probability of every token that the text has already: above 1 avoids them. (The paper multiplies or
    divides logits by their sign, whose zero means nothing.)"""
    no_repeat_ngram: Positive | None = None
    """No so many tokens in a row come twice, unless there is no other choice."""
    mode: Literal["draw", "mean"] = "draw"
    """mean takes the likeliest token each time, as a temperature of 0 does."""

    def probabilities(
        self, logits: Float[Tensor, "n vocabulary"], past: Int64[Tensor, "n past"] | None = None
    ) -> Float64[Tensor, "n vocabulary"]:
        """What the next token is drawn from, on the CPU, where every machine has float64. `past`: the texts so far."""
        scores = logits.to("cpu", torch.float64)
        if past is not None:
            scores = self._unrepeated(scores, past.to("cpu"))
        if self.mode == "mean" or self.temperature == 0:
            return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).double()
        scores = scores / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(scores < scores.topk(self.top_k).values[:, -1:], -torch.inf)
        chances = scores.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = chances.sort(descending=True, stable=True)
            # A token stays where those before it have less than p together; the likeliest always does.
            beyond = ordered.cumsum(-1) - ordered >= self.top_p
            beyond[:, 0] = False
            chances = chances.masked_fill(beyond.scatter(1, order, beyond), 0.0)
            chances = chances / chances.sum(-1, keepdim=True)
        return chances

    def _unrepeated(self, scores: Float64[Tensor, "n vocabulary"], past: Int64[Tensor, "n past"]) -> Float64[Tensor, "n vocabulary"]:
        """Log-probabilities, or logits where no knob asks, with what the past forbids made unlikely or impossible."""
        if self.repetition_penalty != 1:
            scores = scores.log_softmax(-1)
            scores = torch.where(_marked(past, torch.ones_like(past, dtype=torch.bool), scores), scores * self.repetition_penalty, scores)
        size = self.no_repeat_ngram
        if size is not None and past.shape[1] >= size:
            runs = past.unfold(1, size, 1)
            again = (runs[..., :-1] == past[:, None, past.shape[1] - size + 1 :]).all(-1)
            banned = _marked(runs[..., -1], again, scores)
            scores = scores.masked_fill(banned & ~banned.all(-1, keepdim=True), -torch.inf)
        return scores

    def draw(self, logits: Float[Tensor, "n vocabulary"], noise: Noise, past: Int64[Tensor, "n past"] | None = None) -> Int64[Tensor, " n"]:
        """One token a text."""
        chances = self.probabilities(logits, past)
        if self.mode == "mean" or self.temperature == 0:
            return chances.argmax(-1).to(noise.device)
        return noise.categorical(chances)


def _marked(
    tokens: Int64[Tensor, "n some"], where: Bool[Tensor, "n some"], like: Float[Tensor, "n vocabulary"]
) -> Bool[Tensor, "n vocabulary"]:
    """Which symbols are among each row's tokens at the places that are marked."""
    return torch.zeros_like(like).scatter_add_(1, tokens, where.to(like.dtype)) > 0


def check(tokens: Int64[Tensor, " tokens"], vocabulary: int) -> None:
    """Raises `UsageError` for a token outside the vocabulary."""
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise UsageError(f"a token lies outside the vocabulary of {vocabulary} symbols: encode the text with the run's own codec")


def write(
    reader: Reader,
    n: int,
    *,
    vocabulary: int,
    length: int,
    choice: Choice,
    noise: Noise,
    prompt: Int64[Tensor, " prompt"] | None = None,
    stop: Stop | None = None,
    watch: Watch | None = None,
) -> Int64[Tensor, "n time"]:
    """n texts, each the prompt and up to `length` new tokens.

    Arguments:
        prompt: tokens that every text starts with.
        stop: asked of the new tokens of each text whenever it has one more; behind a text that ends with it stands `NOTHING`.
        watch: told the new tokens of all texts, `NOTHING` for those that have ended, as they come.

    Raises `UsageError` for a prompt outside the vocabulary and for a negative length.
    """
    core.Range(0).check("length", length)
    given = torch.empty(0, dtype=torch.int64) if prompt is None else prompt
    check(given, vocabulary)
    first = len(given)
    ends = torch.full((n,), first + length)
    # Inference mode spares each of the many small operations a little; what it makes is of no use for gradients, so a copy goes out.
    with torch.inference_mode():
        x = torch.nn.functional.pad(given.to(noise.device), (0, length)).repeat(n, 1)
        read = reader(x)
        for position in range(first, first + length):
            x[:, position] = choice.draw(read(position), noise, x[:, :position])
            if watch is not None:
                watch(x[:, position].masked_fill((ends <= position).to(x.device), NOTHING))
            if stop is not None:
                # Those that have ended go on unseen, so that the others need not be moved.
                for row in (ends > position).nonzero()[:, 0].tolist():
                    if stop(x[row, first : position + 1]):
                        ends[row] = position + 1
                if not (ends > position + 1).any():
                    break
    return x.masked_fill((torch.arange(first + length) >= ends[:, None]).to(x.device), NOTHING)


def fill(
    reader: Reader, x: Int64[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, vocabulary: int, choice: Choice, noise: Noise
) -> Int64[Tensor, "batch time"]:
    """x with the tokens where `mask` is False drawn anew, from left to right.

    Each is drawn from its distribution given what stands to its left, kept or drawn; what stands to its right has no influence,
    so a gap in the middle is filled without regard to how it must end.

    Raises `UsageError` where a kept token lies outside the vocabulary.
    """
    check(x[mask], vocabulary)
    with torch.inference_mode():
        filled = x.masked_fill(~mask, 0)
        read = reader(filled)
        for position in range(x.shape[1]):
            kept = mask[:, position]
            if kept.all():
                # Spends the numbers that another row's gap here would, so that rows do not depend on one another.
                noise.uniform(1)
            else:
                drawn = choice.draw(read(position), noise, filled[:, :position])
                filled[:, position] = torch.where(kept, filled[:, position], drawn)
    return filled.clone()
