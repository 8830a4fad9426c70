"""Text: one long row of characters or bytes, split in file order."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from pofx.core import DataSpec, UsageError
from pofx.data.dataset import Codec, Dataset, Split
from pofx.data.download import fetch
from pofx.data.files import MAPPED, whole
from pofx.data.options import Request
from pofx.data.splits import fingerprint

NAMES = {
    "tiny_shakespeare": "1.1 million characters of Shakespeare's plays; downloaded (1 MB)",
    "python_docs": "the help topics of this Python, hundreds of thousands of characters of English; embedded",
}
READS = ".txt texts"
#: What stands for a character that training never saw.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: What stands between texts that are shown or written together.
RULE = "\n" + "-" * 40 + "\n"
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

    kind: chars, whose number is their place in `symbols` and one more for unknown ones; or bytes, which are their number.
    """

    name: ClassVar[str] = "tokens"
    kind: Literal["chars", "bytes"]
    symbols: str = ""

    @property
    def vocabulary(self) -> int:
        """The number of symbols, the unknown one among them."""
        return 256 if self.kind == "bytes" else len(self.symbols) + 1

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return np.frombuffer(self.symbols.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)

    def encode(self, text: str) -> Integer[Tensor, " length"]:
        """The numbers of a text's symbols, in the smallest integers that hold them."""
        if self.kind == "bytes":
            return torch.from_numpy(np.frombuffer(bytearray(text.encode()), dtype=np.uint8))
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        place = np.searchsorted(self._points, points).clip(max=len(self.symbols) - 1)
        known = self._points[place] == points
        dtype = np.uint8 if self.vocabulary <= 256 else np.int32
        return torch.from_numpy(np.where(known, place, len(self.symbols)).astype(dtype))

    def decode(self, ids: Integer[Tensor, " length"] | Sequence[int]) -> str:
        """The text of symbols; unknown characters, and bytes that are no UTF-8, become a replacement character. Numbers below 0
        stand behind the end of a text, and give nothing."""
        values = _real(ids)
        if self.kind == "bytes":
            return bytes(values).decode("utf-8", errors="replace")
        table = self.symbols + UNKNOWN
        return "".join(table[value] for value in values)

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
            elif self.kind == "bytes":
                temporary.write_bytes(RULE.encode().join(bytes(_real(row)) for row in x))
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
    """The data set of a text: the first 90 % train, their last 2 % validate, the last 10 % test. Raises `UsageError` for
    an empty file and, where characters are read, for one that is not UTF-8."""
    options, codec, source = request.options, request.codec, request.source
    options.only(source, "a text", "kind", "tokens", "validation")
    if options.kind not in (None, "tokens"):
        raise UsageError(f"{source} is a text, which cannot be read as {options.kind}: its kind is tokens")
    if codec is not None and not isinstance(codec, TokenCodec):
        raise UsageError(f"{source} is a text, and the run models {codec.name}: give it data of that kind")
    if codec is not None and options.tokens == "bytes" and codec.kind != "bytes":
        raise UsageError("the run reads characters: leave --data.tokens out")
    kind = codec.kind if codec else options.tokens
    raw = _bytes(request)
    if not len(raw):
        raise UsageError(f"{source} is empty: give a text")
    if kind == "bytes":
        x, cut = torch.from_numpy(raw), _cuts(len(raw), options.validation)
        codec = codec or TokenCodec("bytes")
    else:
        text = _decode(raw, source)
        cut = _cuts(len(text), options.validation)
        codec = codec or TokenCodec("chars", "".join(sorted(set(text[: cut[0]]))))
        x = codec.encode(text)
    notes: tuple[str, ...] = ()
    unknown = int((x == len(codec.symbols)).sum()) if kind == "chars" else 0
    if unknown:
        notes = (f"{unknown:,} of {len(x):,} characters never occur in the training text and count as one unknown symbol",)

    def part(start: int, stop: int) -> Split | None:
        return Split(x[start:stop], tokens=True) if stop > start else None

    train = part(0, cut[0])
    assert train is not None
    return Dataset(
        source=source,
        spec=DataSpec(kind="tokens", shape=(), size=len(train), vocabulary=codec.vocabulary),
        codec=codec,
        train=train,
        validation=part(cut[0], cut[1]),
        test=part(cut[1], len(x)),
        fingerprint=fingerprint(hashlib.sha256(raw).hexdigest(), options),
        options=options.to_json(),
        notes=notes,
    )


def _cuts(length: int, share: float | None) -> tuple[int, int]:
    """Where training and validation end."""
    pool = max(1, int(0.9 * length))
    return max(1, int((1 - (0.02 if share is None else share)) * pool)), pool


def _bytes(request: Request) -> np.ndarray:
    if request.source == "python_docs" and request.path is None:
        from pydoc_data.topics import topics

        return np.frombuffer(bytearray("\n\n".join(topics[name] for name in sorted(topics)).encode()), dtype=np.uint8)
    path = request.path or fetch(*_SHAKESPEARE)
    size = path.stat().st_size
    if size <= MAPPED:
        return np.frombuffer(bytearray(path.read_bytes()), dtype=np.uint8)
    kind = request.codec.kind if isinstance(request.codec, TokenCodec) else request.options.tokens
    if kind != "bytes":
        raise UsageError(f"{path} has {size / 1e9:.1f} GB, too much to number its characters in memory: give --data.tokens bytes")
    # Copy-on-write, so that torch sees an array that can be written; nothing writes to it.
    return np.memmap(path, dtype=np.uint8, mode="c")


def _decode(raw: np.ndarray, source: str) -> str:
    try:
        text = raw.tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{source} is not UTF-8 text (byte {error.start:,} is 0x{raw[error.start]:02x}): convert it, or give --data.tokens bytes"
        ) from error
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if not text:
        raise UsageError(f"{source} is empty: give a text")
    return text
