"""Text: one long row of characters, bytes or runs of bytes, split in file order."""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from pofx.core import DataSpec, UsageError
from pofx.data import bpe
from pofx.data.corpus import BLOCK, LARGE, between, characters, dtype, number
from pofx.data.dataset import Codec, Dataset, Split
from pofx.data.download import fetch
from pofx.data.files import whole
from pofx.data.options import Request
from pofx.data.splits import fingerprint

NAMES = {
    "tiny_shakespeare": "1.1 million characters of Shakespeare's plays; downloaded (1 MB)",
    "python_docs": "the help topics of this Python, hundreds of thousands of characters of English; embedded",
}
READS = ".txt texts"
#: What stands for a character that training never saw.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: Such characters that a person is told of.
STRANGE = 5
#: What stands between texts that are shown or written together.
RULE = "\n" + "-" * 40 + "\n"
#: Training symbols below which a text is told to be small, and standard deviation, in nats, of the surprise of a symbol, about.
SMALL, SPREAD = 20_000, 2.0
#: Bytes of the longest character in UTF-8.
LONGEST = 4
_SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "tiny_shakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


@dataclasses.dataclass(frozen=True)
class TokenCodec(Codec):
    """The symbols of a text.

    kind: chars, whose number is their place in `symbols` and one more for unknown ones; bytes, which are their number; or bpe, runs of
    bytes, of which `symbols` is a JSON description.
    """

    name: ClassVar[str] = "tokens"
    kind: Literal["chars", "bytes", "bpe"]
    symbols: str = ""

    @property
    def vocabulary(self) -> int:
        """The number of symbols, the unknown one of characters among them."""
        if self.kind == "bpe":
            return len(bpe.spelled(self.symbols))
        return 256 if self.kind == "bytes" else len(self.symbols) + 1

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return np.frombuffer(self.symbols.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)

    def encode(self, text: str) -> Integer[Tensor, " length"]:
        """The numbers of a text's symbols, in the smallest integers that hold them."""
        return torch.from_numpy(self.numbers(text).astype(dtype(self.vocabulary)))

    def numbers(self, text: str) -> Integer[np.ndarray, " length"]:
        """The numbers of a text's symbols."""
        if self.kind == "bpe":
            return bpe.encode(self.symbols, text)
        if self.kind == "bytes":
            return np.frombuffer(text.encode(), dtype=np.uint8)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        place = np.searchsorted(self._points, points).clip(max=len(self.symbols) - 1)
        return np.where(self._points[place] == points, place, len(self.symbols))

    def strange(self, text: str) -> str:
        """The first characters of a text that have no number of their own, as they are shown to a person; empty where all have one."""
        if self.kind != "chars":
            return ""
        found = dict.fromkeys(character for character in text if character not in self.symbols)
        return ", ".join([*map(repr, list(found)[:STRANGE]), *["..."] * (len(found) > STRANGE)])

    def decode(self, ids: Integer[Tensor, " length"] | Sequence[int]) -> str:
        """The text of symbols; unknown characters, and bytes that are no UTF-8, become a replacement character. Numbers below 0
        stand behind the end of a text, and give nothing."""
        if self.kind != "chars":
            return self._bytes(ids).decode("utf-8", errors="replace")
        table = self.symbols + UNKNOWN
        return "".join(table[value] for value in _real(ids))

    def _bytes(self, ids: Integer[Tensor, " length"] | Sequence[int]) -> bytes:
        """The bytes of symbols that are bytes, or runs of them."""
        values = _real(ids)
        return bytes(values) if self.kind == "bytes" else b"".join(map(bpe.spelled(self.symbols).__getitem__, values))

    def ends(self, strings: Sequence[str]) -> Callable[[Integer[Tensor, " length"]], bool]:
        """Whether symbols have ended with one of some strings when the last of them came. Raises `UsageError` for an empty one."""
        if not all(strings):
            raise UsageError("a text cannot stop at an empty string: give the text to stop at")
        # A symbol stands for one byte at least, so that these reach back far enough.
        most = max(len(text.encode()) for text in strings)

        def ended(ids: Integer[Tensor, " length"]) -> bool:
            tail = self.decode(ids[-most:])
            return any(text in tail for text in strings)

        return ended

    def show(self, x: Integer[Tensor, "n length"]) -> list[str]:
        """One text an example."""
        return [self.decode(row) for row in x]

    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes .txt (several texts with a rule between them; bytes as they are) or .jsonl (`{"text": ...}` a line).
        Raises `UsageError` for another ending."""
        path = pathlib.Path(path)
        if path.suffix not in (".txt", ".jsonl"):
            raise UsageError(f"texts are written to .txt or .jsonl, not to {path.name}")
        with whole(path) as temporary:
            if path.suffix == ".jsonl":
                lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in self.show(x)]
                temporary.write_bytes("".join(lines).encode())
            elif self.kind != "chars":
                temporary.write_bytes(RULE.encode().join(self._bytes(row) for row in x))
            else:
                temporary.write_bytes(RULE.join(self.show(x)).encode("utf-8", "replace"))


class Spelling:
    """A text that is read symbol by symbol; a character of several bytes comes when its last byte has."""

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._waiting: list[int] = []

    def add(self, ids: Integer[Tensor, " new"]) -> str:
        """What some more symbols add to the text."""
        self._waiting += ids.tolist()
        text, decode = self._codec.decode(self._waiting), self._codec.decode
        kept = 0
        if text.endswith(UNKNOWN):
            # The beginning of a character, if that is what it is, is the shortest end that can be cut off and changes nothing.
            cuts = range(1, min(LONGEST, len(self._waiting) + 1))
            kept = next((k for k in cuts if decode(self._waiting[:-k]) + decode(self._waiting[-k:]) == text), 0)
        done = len(self._waiting) - kept
        said, self._waiting = self._waiting[:done], self._waiting[done:]
        return decode(said)

    def rest(self) -> str:
        """What the symbols that were waiting for others are without them."""
        waiting, self._waiting = self._waiting, []
        return self._codec.decode(waiting)


def _real(ids: Integer[Tensor, " length"] | Sequence[int]) -> list[int]:
    """The numbers of symbols without those that stand behind the end of a text."""
    values = ids.tolist() if isinstance(ids, Tensor) else ids
    return [value for value in values if value >= 0]


def line(text: str) -> str:
    """A text on one line: line ends and tabs as signs, other control characters as dots, so that places can be compared."""
    signs = {"\n": "⏎", "\t": "⇥"}
    return "".join(signs.get(c, c if c.isprintable() else "·") for c in text)


def matches(path: pathlib.Path) -> bool:
    """Whether the file's name says that it is text."""
    return path.suffix.lower() == ".txt" and path.is_file()


def load(request: Request) -> Dataset:
    """The data set of a text: the first 90 % of its characters (of bytes, where these are the symbols) train, their last 2 % validate,
    the last 10 % test. Raises `UsageError` for an empty file and, where characters or runs of bytes are read, for one that is not UTF-8."""
    options, codec, source = request.options, request.codec, request.source
    options.only(source, "a text", "kind", "tokens", "vocabulary", "validation")
    if options.kind not in (None, "tokens"):
        raise UsageError(f"{source} is a text, which cannot be read as {options.kind}: its kind is tokens")
    if options.vocabulary is not None and options.tokens != "bpe":
        raise UsageError("--data.vocabulary is the number of tokens of --data.tokens bpe: leave it out, or give that")
    if codec is not None and not isinstance(codec, TokenCodec):
        raise UsageError(f"{source} is a text, and the run models {codec.name}: give it data of that kind")
    if codec is not None and options.tokens not in ("chars", codec.kind):
        raise UsageError(f"the run reads {codec.kind}: leave --data.tokens out")
    kind = codec.kind if codec else options.tokens
    raw = _bytes(request)
    if not len(raw):
        raise UsageError(f"{source} is empty: give a text")
    content = hashlib.sha256(raw).hexdigest()
    length = len(raw) if kind == "bytes" else sum(map(len, characters(raw, source)))
    if not length:
        raise UsageError(f"{source} is empty: give a text")
    cut = _cuts(length, options.validation)
    spans = [(0, cut[0]), (cut[0], cut[1]), (cut[1], length)]
    if kind == "bytes":
        codec, every = codec or TokenCodec("bytes"), torch.from_numpy(raw)
    else:
        codec = codec or _learn(raw, source, cut[0], kind, options.vocabulary)
        # Runs of bytes end where a part ends; other symbols are numbered in one piece, which all parts together then are again.
        every = _number(raw, source, (0, length), codec, length, content) if kind == "chars" else None
    x = [_number(raw, source, span, codec, length, content) if every is None else every[slice(*span)] for span in spans]
    notes = _notes(source, codec, length, x)

    def part(symbols: Tensor) -> Split | None:
        return Split(symbols, tokens=True) if len(symbols) else None

    train = part(x[0])
    assert train is not None
    return Dataset(
        source=source,
        spec=DataSpec(kind="tokens", shape=(), size=len(train), vocabulary=codec.vocabulary),
        codec=codec,
        train=train,
        validation=part(x[1]),
        test=part(x[2]),
        fingerprint=fingerprint(content, options),
        options=options.to_json(),
        notes=notes,
    )


def _learn(raw: np.ndarray, source: str, stop: int, kind: Literal["chars", "bpe"], vocabulary: int | None) -> TokenCodec:
    """The symbols of the first characters of a text."""
    if kind == "bpe":
        text = between(characters(raw, source), 0, min(stop, bpe.LEARNED))
        return TokenCodec("bpe", bpe.learn(bpe.lines(text), vocabulary or bpe.size(len(raw))))
    symbols: set[str] = set()
    for piece in between(characters(raw, source), 0, stop):
        symbols.update(piece)
    return TokenCodec("chars", "".join(sorted(symbols)))


def _number(raw: np.ndarray, source: str, span: tuple[int, int], codec: TokenCodec, length: int, content: str) -> Tensor:
    """The symbols of some characters of a text."""
    pieces: Iterable[str] = between(characters(raw, source), *span)
    # Each part takes its share of the bytes.
    size = len(raw) * (span[1] - span[0]) // length
    key = (content, codec.kind, codec.symbols, *map(str, span))
    return number(bpe.lines(pieces) if codec.kind == "bpe" else pieces, codec.numbers, codec.vocabulary, of=size, key=key)


def _notes(source: str, codec: TokenCodec, length: int, x: list[Tensor]) -> tuple[str, ...]:
    """What a person should know of the text: symbols that training never saw, and what it is too small for."""
    notes = []
    absent = len(codec.symbols)
    unknown = sum(int((some == absent).sum()) for part in x for some in part.split(BLOCK)) if codec.kind == "chars" else 0
    if unknown:
        notes.append(f"{unknown:,} of {length:,} characters never occur in the training text and count as one unknown symbol")
    if len(x[0]) < SMALL:
        held = sum(map(len, x[1:]))
        notes.append(
            f"{source} is small: {len(x[0]):,} training symbols teach spelling at best, an n-gram may learn as much from them as a network, "
            f"which soon knows them by heart, and a likelihood per symbol on {held:,} held-out ones is uncertain by about "
            f"{SPREAD / math.sqrt(max(1, held)):.2f} nats; {SMALL:,} are a beginning"
        )
    return tuple(notes)


def _cuts(length: int, share: float | None) -> tuple[int, int]:
    """Where training and validation end."""
    pool = max(1, int(0.9 * length))
    return max(1, int((1 - (0.02 if share is None else share)) * pool)), pool


def _bytes(request: Request) -> np.ndarray:
    if request.source == "python_docs" and request.path is None:
        from pydoc_data.topics import topics

        return np.frombuffer(bytearray("\n\n".join(topics[name] for name in sorted(topics)).encode()), dtype=np.uint8)
    path = request.path or fetch(*_SHAKESPEARE)
    if path.stat().st_size <= LARGE:
        return np.frombuffer(bytearray(path.read_bytes()), dtype=np.uint8)
    # Copy-on-write, so that torch sees an array that can be written; nothing writes to it.
    return np.memmap(path, dtype=np.uint8, mode="c")
