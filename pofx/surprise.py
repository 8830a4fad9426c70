"""How surprising each symbol of a text is to a model, in numbers and as a page on which the surprising places stand out."""

import dataclasses
import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pofx import examples, page
from pofx.core import Model, Predicts
from pofx.data.dataset import Split
from pofx.data.text import Spelling, TokenCodec, line

#: Windows that are read at once, and logits that are held at once, at most.
ROWS, LOGITS = 64, 1 << 26
#: Symbols of the text that a page shows, surprising places that it lists, and symbols that it shows of what stood before each.
SHOWN, LISTED, BEFORE = 50_000, 20, 60
#: Shades of a page, in bits from which on each begins.
SHADES = (2.0, 4.0, 6.0, 8.0)
_CSS = "".join(
    f".s{i} {{ background: color-mix(in srgb, var(--bad) {20 * i}%, transparent) }} " for i in range(1, len(SHADES) + 1)
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Surprise:
    """What a model makes of the symbols of a text.

    tokens: the text. nats: -log p of each symbol given those before it.
    expected: the likeliest symbol at each place. chance: its probability.
    """

    tokens: Int64[np.ndarray, " length"]
    nats: Float64[np.ndarray, " length"]
    expected: Int64[np.ndarray, " length"]
    chance: Float64[np.ndarray, " length"]


def windows(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, from): a text is read in windows, from each of which the symbols from `from` on count.

    The first one counts whole; each of the others begins half a window later than the one before, so that every symbol has at
    least half a window before it.
    """
    stride = window - window // 2
    done, start = 0, 0
    while done < length:
        stop = min(start + window, length)
        yield start, stop, done
        done, start = stop, start + stride


def measure(model: Model, text: Split, limit: int | None = None) -> Surprise:
    """The surprise of each symbol of a text, read as one: in one pass by a model that carries a state on, else in windows (see
    `windows`); `limit`: of its first symbols only."""
    length = len(text) if limit is None else min(limit, len(text))
    found: list[tuple[Tensor, ...]] = []
    with examples.asking(model):
        for x, logits in (_carried if model.order == "lanes" else _windowed)(model, text, length):
            log_p = logits.double().log_softmax(-1)
            best = log_p.max(-1)
            taken = log_p.gather(1, x[:, None])[:, 0]
            found.append(tuple(values.cpu() for values in (x, -taken, best.indices, best.values.exp())))
    tokens, nats, expected, chance = (torch.cat(values).numpy() for values in zip(*found, strict=True))
    return Surprise(tokens, nats, expected, chance)


def context(model: Model) -> str:
    """What each symbol is read after, in words that go on a sentence; empty where that is all before it."""
    if not model.window or model.order == "lanes":
        return ""
    return f", of which each token sees the last {model.window // 2:,} or more, where there are so many"


def _carried(model: Model, text: Split, length: int) -> Iterator[tuple[Int64[Tensor, " some"], Float[Tensor, "some vocabulary"]]]:
    """The symbols of a text and the logits of each, in its order."""
    x, done = text.batch(torch.tensor([0]), window=length, device=model.device).x, 0
    for logits in cast(Predicts, model).stretches(x):
        yield x[0, done : done + logits.shape[1]], logits[0]
        done += logits.shape[1]


def _windowed(model: Model, text: Split, length: int) -> Iterator[tuple[Int64[Tensor, " some"], Float[Tensor, "some vocabulary"]]]:
    """The same of a model that reads windows, of which many are read at once."""
    window = model.window or length
    rows = max(1, min(ROWS, LOGITS // (window * model.spec.vocabulary)))
    parts = list(windows(length, window))
    for some in (parts[i : i + rows] for i in range(0, len(parts), rows)):
        # Only the last window of all may be shorter.
        for size in sorted({stop - start for start, stop, _ in some}, reverse=True):
            same = [part for part in some if part[1] - part[0] == size]
            x = text.batch(torch.tensor([start for start, _, _ in same]), window=size, device=model.device).x
            counted = torch.arange(size) >= torch.tensor([first - start for start, _, first in same])[:, None]
            counted = counted.to(model.device)
            yield x[counted], cast(Predicts, model).logits(x)[counted]


def summary(surprise: Surprise, codec: TokenCodec) -> list[tuple[str, str]]:
    """Names and values: the text's length, nats and bits per character, perplexity."""
    total, characters = float(surprise.nats.sum()), max(1, len(codec.decode(surprise.tokens)))
    mean = total / len(surprise.nats)
    found = [
        ("characters", f"{characters:,}"),
        ("nats per character", f"{total / characters:.4f}"),
        ("bits per character", f"{total / characters / math.log(2):.4f}"),
        ("perplexity per token", f"{math.exp(mean):.3f}"),
    ]
    if characters != len(surprise.nats):
        found[1:1] = [("tokens", f"{len(surprise.nats):,}"), ("nats per token", f"{mean:.4f}")]
    return found


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A character, or several that came as one token, with its bits, and what was expected at its first token."""

    text: str
    bits: float
    expected: str


def _pieces(surprise: Surprise, codec: TokenCodec, places: range) -> list[_Piece]:
    spelling, pieces, waiting = Spelling(codec), [], []
    for place in places:
        text = spelling.add(torch.from_numpy(surprise.tokens[place : place + 1]))
        waiting.append(place)
        if text or place == places[-1]:
            bits = float(surprise.nats[waiting].sum()) / math.log(2)
            first = waiting[0]
            guess = f"{line(codec.decode([int(surprise.expected[first])]))} {surprise.chance[first]:.0%}"
            pieces.append(_Piece(text or spelling.rest(), bits, guess))
            waiting = []
    return pieces


def _coloured(pieces: list[_Piece]) -> str:
    """HTML in which the background says how surprising a place is; what was expected there is told on pointing at it."""
    shown = []
    for piece in pieces:
        shade = sum(piece.bits >= least for least in SHADES)
        text = page.text(piece.text)
        told = f"{piece.bits:.1f} bits; likeliest was {piece.expected}"
        shown.append(f'<span class="s{shade}" title="{page.text(told)}">{text}</span>' if shade else text)
    return "".join(shown)


def document(surprise: Surprise, codec: TokenCodec, title: str, subtitle: str) -> str:
    """The page: numbers, the most surprising places with what stood before them, and the text in shades."""
    order = np.argsort(-surprise.nats, kind="stable")[:LISTED]
    rows = []
    for place in map(int, order):
        before = codec.decode(surprise.tokens[max(0, place - BEFORE) : place])
        here, guess = (codec.decode([int(token[place])]) for token in (surprise.tokens, surprise.expected))
        rows.append(
            [
                f"{surprise.nats[place] / math.log(2):.1f}",
                f"{page.text(line(before))}<span class='s{len(SHADES)}'>{page.text(line(here))}</span>",
                f"{page.text(line(guess))} {surprise.chance[place]:.0%}",
                f"{place:,}",
            ]
        )
    pieces = _pieces(surprise, codec, range(min(SHOWN, len(surprise.tokens))))
    cut = f" Its first {SHOWN:,} tokens are shown." if len(surprise.tokens) > SHOWN else ""
    scale = " ".join(f"<span class='s{i}'>from {least:g} bits</span>" for i, least in enumerate(SHADES, 1))
    sections = [
        f"<style>{_CSS}</style>",
        page.facts(summary(surprise, codec)),
        "<h2>The most surprising places</h2>",
        page.numbers(["bits", "what stood there", "likeliest was", "place"], [("", rows)]),
        f"<h2>The text</h2><p>{scale}</p>",
        page.paragraphs([f"The darker a place, the less the model expected it; point at it to see what it did expect.{cut}"]),
        f'<pre class="prose">{_coloured(pieces)}</pre>',
    ]
    return page.document(title, subtitle, sections)
