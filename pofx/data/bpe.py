"""Byte-pair encoding: tokens are runs of bytes that a corpus has often; any text is a row of them, and comes back byte by byte."""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from pofx.core import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Tokens by default: one for each so many bytes of the corpus, up to a power of two, within these bounds.
SHARE, FEWEST, MOST = 1000, 512, 8192
#: Characters from which the merges are learned, at most.
LEARNED = 1 << 24
#: Characters that are encoded at once, about, and after which a text is cut although no line ends.
LINE = 1 << 16


def size(length: int) -> int:
    """How many tokens a corpus of so many bytes gets by default."""
    return max(FEWEST, min(MOST, 1 << (length // SHARE).bit_length()))


def _library() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise UsageError('--data.tokens bpe needs the library tokenizers: pip install "pofx[tokens]"') from error


def learn(pieces: Iterable[str], vocabulary: int) -> str:
    """Learns at most so many tokens, the 256 bytes among them, from a text that comes in pieces; they are returned as JSON.

    Raises `UsageError` where the library is missing.

    References:
        Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016), https://arxiv.org/abs/1508.07909
        Language Models are Unsupervised Multitask Learners (Radford et al., 2019), section 2.2 (on bytes),
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    """
    _library()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=sorted(_alphabet()), show_progress=False)
    made.train_from_iterator(pieces, trainer)
    return str(made.to_str())


@functools.lru_cache(maxsize=4)
def _load(tokens: str) -> "Tokenizer":
    _library()
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokens)


def encode(tokens: str, text: str) -> Int64[np.ndarray, " length"]:
    """The numbers of a text's tokens. Raises `UsageError` where the library is missing."""
    pieces, start = [], 0
    while start < len(text):
        stop = text.find("\n", start + LINE) + 1 or len(text)
        pieces.append(text[start:stop])
        start = stop
    # Of many short pieces the library makes better use than of a long one, and of all processors.
    found = _load(tokens).encode_batch_fast(pieces, add_special_tokens=False)
    return np.concatenate([np.empty(0, np.int64), *(np.array(piece.ids, np.int64) for piece in found)])


@functools.lru_cache(maxsize=4)
def spelled(tokens: str) -> list[bytes]:
    """The bytes of each token, in the order of their numbers."""
    alphabet = _alphabet()
    numbers: dict[str, int] = json.loads(tokens)["model"]["vocab"]
    return [bytes(alphabet[sign] for sign in token) for token in sorted(numbers, key=numbers.__getitem__)]


@functools.cache
def _alphabet() -> dict[str, int]:
    """The sign that stands for each byte in the library's vocabularies: visible bytes are themselves, the others come after 255."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces that end with a line where they can, so that few tokens are torn apart."""
    rest = ""
    for piece in pieces:
        head, end, tail = (rest + piece).rpartition("\n")
        if end:
            yield head + end
        rest = tail
        if len(rest) >= LINE:
            yield rest
            rest = ""
    if rest:
        yield rest
