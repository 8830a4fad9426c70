"""Texts in pieces equal texts at once, whatever their size; tokens of byte-pair encoding come back byte by byte."""

import builtins
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pofx import data
from pofx.cli import main
from pofx.core import UsageError
from pofx.data import Options, bpe, corpus, files, text
from pofx.data.dataset import Split
from pofx.data.text import TokenCodec
from pofx.run import Run

WORDS = "the cat sat on the mat.\nñandú and 日本, the rat; the hat\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POFX_CACHE", str(tmp_path / "cache"))


def refuse(source, options, **more):
    with pytest.raises(UsageError) as refused:
        data.load(source, options, **more)
    return str(refused.value)


def parts(dataset):
    return [part.x for part in (dataset.train, dataset.validation, dataset.test)]


@pytest.mark.parametrize("tokens", ["chars", "bytes", "bpe"])
@pytest.mark.parametrize("block", [1, 7, 100])
def test_a_text_in_pieces_is_the_text_at_once(tmp_path, monkeypatch, tokens, block):
    path = tmp_path / "x.txt"
    path.write_text("\ufeff" + WORDS * 30, encoding="utf-8")
    options = Options(tokens=tokens, vocabulary=300 if tokens == "bpe" else None)
    whole = data.load(path, options)
    monkeypatch.setattr(corpus, "BLOCK", block)
    pieces = data.load(path, options)
    assert pieces.codec == whole.codec
    assert pieces.fingerprint == whole.fingerprint
    assert all(map(torch.equal, parts(pieces), parts(whole)))
    read = [whole.codec.decode(x) for x in parts(whole)]
    assert [pieces.codec.decode(x) for x in parts(pieces)] == read
    assert "".join(read).removeprefix("\ufeff") == WORDS * 30


@pytest.mark.parametrize("tokens", ["chars", "bytes", "bpe"])
def test_a_large_text_is_mapped_and_nothing_of_it_changes(tmp_path, monkeypatch, tokens):
    path = tmp_path / "x.txt"
    path.write_text(WORDS * 30, encoding="utf-8")
    options = Options(tokens=tokens, vocabulary=300 if tokens == "bpe" else None)
    small = data.load(path, options)
    for module in (text, corpus):
        monkeypatch.setattr(module, "LARGE", 10)
    monkeypatch.setattr(corpus, "BLOCK", 64)
    mapped, memmap = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda *arguments, **more: mapped.append(arguments[0]) or memmap(*arguments, **more))
    large = data.load(path, options)
    assert large.codec == small.codec
    assert [large.codec.decode(x) for x in parts(large)] == [small.codec.decode(x) for x in parts(small)]
    kept = sorted((files.cache() / "tokens").glob("*"))
    # The file once where its bytes are the symbols, else the file and the numbers: of characters all, of runs of bytes those of each part.
    assert len(kept) == {"bytes": 0, "chars": 1, "bpe": 3}[tokens]
    assert len(mapped) == 1 + len(kept)
    # The second time nothing is numbered.
    monkeypatch.setattr(TokenCodec, "numbers", None)
    again = data.load(path, options)
    assert all(map(torch.equal, parts(again), parts(large)))
    batch = next(again.train.batches(2, window=16))
    assert batch.x.dtype == torch.int64
    # All of it is one text again, which is copied only where parts were numbered apart.
    every = data.everything(again).x
    assert torch.equal(every, torch.cat(parts(again)))
    assert (every.data_ptr() == again.train.x.data_ptr()) == (tokens != "bpe")


def test_whether_a_text_says_anything_is_asked_without_an_index_of_all_of_it(monkeypatch):
    text, arange = torch.zeros(1_000_000, dtype=torch.uint8), torch.arange
    monkeypatch.setattr(torch, "arange", lambda *of, **more: arange(*of, **more) if max(of) < 1_000_000 else pytest.fail("too long"))
    assert Split(text, tokens=True).constant
    text[-1] = 1
    assert not Split(text, tokens=True).constant
    assert Split(text, rows=torch.tensor([3, 4, 999_998]), tokens=True).constant
    assert not Split(text, rows=torch.tensor([3, 4, 999_999]), tokens=True).constant


def test_a_character_that_is_torn_between_pieces_is_whole_and_a_bad_byte_is_told_at_its_place(monkeypatch):
    monkeypatch.setattr(corpus, "BLOCK", 2)
    raw = np.frombuffer("a日b".encode(), np.uint8)
    assert "".join(corpus.characters(raw, "x")) == "a日b"
    for bad, place in ((b"abc\xffdef", 3), ("a日".encode()[:-1], 1), (b"ab\xe6\x97x", 2)):
        with pytest.raises(UsageError, match=f"byte {place} is 0x"):
            list(corpus.characters(np.frombuffer(bad, np.uint8), "x"))


@given(st.lists(st.text("ab\n", max_size=6), max_size=8), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_pieces_may_be_cut_and_joined_anywhere(pieces, start, length):
    whole = "".join(pieces)
    assert "".join(corpus.between(pieces, start, start + length)) == whole[start : start + length]
    joined = list(bpe.lines(pieces))
    assert "".join(joined) == whole
    assert all(joined)


@pytest.mark.parametrize(("vocabulary", "kind"), [(256, np.uint8), (257, np.int16), (1 << 15, np.int16), ((1 << 15) + 1, np.int32)])
def test_numbers_are_kept_in_the_smallest_integers(vocabulary, kind):
    assert corpus.dtype(vocabulary) is kind
    assert vocabulary - 1 <= np.iinfo(kind).max


@pytest.fixture(scope="module")
def codec():
    return TokenCodec("bpe", bpe.learn([WORDS] * 20, 300))


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_from_runs_of_bytes(codec, written):
    written = written.encode("utf-8", "ignore").decode()
    ids = codec.encode(written)
    assert codec.decode(ids) == written
    assert len(ids) <= len(written.encode())
    assert not len(ids) or int(ids.max()) < codec.vocabulary


def test_every_byte_is_a_token_and_frequent_runs_are_one(codec):
    spelled = bpe.spelled(codec.symbols)
    assert 256 < len(spelled) == codec.vocabulary <= 300
    assert {bytes([byte]) for byte in range(256)} <= set(spelled)
    assert b" the" in spelled
    assert len(codec.encode(WORDS)) < 0.5 * len(WORDS.encode())
    # As the library spells them.
    theirs = bpe._load(codec.symbols)
    for ids in itertools.islice(codec.encode(WORDS).split(5), 10):
        assert theirs.decode(ids.tolist()) == codec.decode(ids)


def test_the_default_number_of_tokens_grows_with_the_text():
    sizes = [bpe.size(length) for length in (0, 1000, 10**5, 10**6, 10**7, 10**12)]
    assert sizes == sorted(sizes)
    assert sizes[0] == bpe.FEWEST < sizes[3] < sizes[-1] == bpe.MOST


def test_a_run_keeps_its_tokens(tmp_path, capsys):
    (tmp_path / "one.txt").write_text(WORDS * 40, encoding="utf-8")
    (tmp_path / "two.txt").write_text("the hat sat on ñandú. " * 40, encoding="utf-8")
    run = tmp_path / "run"
    flags = ["--data.tokens", "bpe", "--data.vocabulary", "280", "--model.window", "16"]
    assert main(["train", "ngram", "--data", str(tmp_path / "one.txt"), "--run", str(run), "--quiet", *flags]) == 0
    capsys.readouterr()
    assert main(["sample", str(run), "--n", "1", "--prompt", "the ñ", "--length", "8"]) == 0
    assert capsys.readouterr().out.startswith("the ñ")
    assert main(["sample", str(run), "--n", "2", "--length", "8", "--out", str(tmp_path / "out.txt")]) == 0
    assert main(["score", str(run), "--data", str(tmp_path / "two.txt"), "--out", str(tmp_path / "s.html")]) == 0
    told = capsys.readouterr().out
    assert "nats per character" in told
    assert "nats per token" in told
    assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0


def test_without_the_library_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **more):
        if name.startswith("tokenizers"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"pofx\[tokens\]"):
        bpe.learn(["ab"], 300)


def test_options_that_mean_nothing_are_refused(tmp_path):
    (tmp_path / "x.txt").write_text(WORDS, encoding="utf-8")
    assert "--data.vocabulary" in refuse(tmp_path / "x.txt", Options(vocabulary=300))
    assert "--data.vocabulary" in refuse("digits", Options(vocabulary=300))
    run = data.load(tmp_path / "x.txt", Options(tokens="bytes"))
    assert "--data.tokens" in refuse(tmp_path / "x.txt", Options(tokens="bpe"), codec=run.codec)


def test_a_small_text_is_told_what_it_is_too_small_for(tmp_path, capsys):
    (tmp_path / "small.txt").write_text((WORDS * 20)[:1000], encoding="utf-8")
    (tmp_path / "large.txt").write_text(WORDS * 600, encoding="utf-8")
    assert not data.load(tmp_path / "large.txt").notes
    (note,) = data.load(tmp_path / "small.txt").notes
    assert "is small: 882 training symbols" in note
    assert main(["train", "gpt", "--data", str(tmp_path / "small.txt"), "--run", str(tmp_path / "run"), "--steps", "2"]) == 0
    assert "is small" in " ".join(capsys.readouterr().err.split())
    # Its validation part is shorter than a window, and is one short window.
    assert [len(batch.x) for batch in data.load(tmp_path / "small.txt").validation.batches(8, window=50)] == [1]
    scores = [line["validation/score"] for line in Run.read(tmp_path / "run").metrics() if "validation/score" in line]
    assert scores
    assert np.isfinite(scores).all()
