"""Texts of any size: read in pieces, numbered in pieces, in memory or, where they are large, in a file that is mapped into it."""

import codecs
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from pofx.core import UsageError
from pofx.data.files import cache, make_folder, need_space, progress, whole

#: Bytes that are read at once, and bytes of a text above which neither it nor its numbers are held in memory.
BLOCK, LARGE = 1 << 22, 1 << 26


def characters(raw: np.ndarray, source: str) -> Iterator[str]:
    """The characters of UTF-8, in pieces. Raises `UsageError` naming the first byte that is none."""
    decoder, begun = codecs.getincrementaldecoder("utf-8")(), False
    for start in range(0, len(raw), BLOCK):
        waiting = len(decoder.getstate()[0])
        try:
            piece = decoder.decode(raw[start : start + BLOCK].tobytes(), final=start + BLOCK >= len(raw))
        except UnicodeDecodeError as error:
            place = start - waiting + error.start
            raise UsageError(
                f"{source} is not UTF-8 text (byte {place:,} is 0x{raw[place]:02x}): convert it, or give --data.tokens bytes"
            ) from error
        yield piece if begun else piece.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
        begun = begun or bool(piece)


def between(pieces: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The characters from start to below stop."""
    place = 0
    for piece in pieces:
        if place >= stop:
            return
        if cut := piece[max(0, start - place) : stop - place]:
            yield cut
        place += len(piece)


def joined(parts: Sequence[Integer[Tensor, " _"]]) -> Integer[Tensor, " length"]:
    """Parts of a text as one; without a copy where each begins in memory, or in a mapped file, where the one before ends."""
    first, end = parts[0], parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return torch.cat(list(parts))
        end += part.numel() * part.element_size()
    return first.as_strided((sum(map(len, parts)),), (1,))


def dtype(vocabulary: int) -> type[np.generic]:
    """The smallest integers of torch that hold numbers below the vocabulary."""
    return np.uint8 if vocabulary <= 1 << 8 else np.int16 if vocabulary <= 1 << 15 else np.int32


def number(
    pieces: Iterable[str],
    encode: Callable[[str], np.ndarray],
    vocabulary: int,
    *,
    of: int,
    key: tuple[str, ...],
) -> Integer[Tensor, " length"]:
    """The numbers of a text that comes in pieces.

    Arguments:
        of: bytes of the text, about. Above 64 MB its numbers are kept in a file of the cache, which is mapped.
        key: names that file: what was numbered and how. One that is there is taken as it is.
    """
    kind = dtype(vocabulary)
    if of <= LARGE:
        parts = [encode(piece).astype(kind) for piece in pieces]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty(0, kind))
    name = hashlib.sha256("\n".join(key).encode()).hexdigest()
    path = cache() / "tokens" / f"{name}.{np.dtype(kind).name}"
    if not path.exists():
        need_space(make_folder(path.parent), of * np.dtype(kind).itemsize)
        with (
            whole(path) as temporary,
            temporary.open("wb") as file,
            progress("numbering the text", math.ceil(of / BLOCK)) as advance,
        ):
            for piece in pieces:
                encode(piece).astype(kind).tofile(file)
                advance(1)
    if not path.stat().st_size:
        return torch.from_numpy(np.empty(0, kind))
    # Copy-on-write, so that torch sees an array that can be written; nothing writes to it.
    return torch.from_numpy(np.memmap(path, dtype=kind, mode="c"))
