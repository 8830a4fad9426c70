"""Laws of data sources: splits, seeds, labels, options, the codec of a run, and one sentence for bad input."""

import gzip
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_data_support import PIXELS, SHARED, own_cache, parts, refuse, rows, save_images, whole  # noqa: F401

from pofx import data
from pofx.core import Attributes, Classes, UsageError, Values
from pofx.data import Options, arrays, files, toys

EMBEDDED = ("digits", "ring", "grid", "checkerboard", "python_docs")
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")

# ---------------------------------------------------------------------------------------------------------------
# Every source


@pytest.mark.parametrize("name", EMBEDDED)
def test_equal_source_options_and_seed_give_equal_data(name):
    # A text has no part that a seed decides.
    options = Options() if name == "python_docs" else Options(seed=3)
    first, second = data.load(name, options), data.load(name, options)
    assert first.fingerprint == second.fingerprint
    assert first.spec == second.spec
    assert first.codec == second.codec
    for one, other in zip(parts(first), parts(second), strict=True):
        assert torch.equal(one.x, other.x)
        assert one.tokens or rows(one) == rows(other)


@pytest.mark.parametrize("name", ["digits", "ring"])
def test_another_seed_gives_other_splits_or_other_points(name):
    first, second = data.load(name), data.load(name, Options(seed=1))
    assert rows(first.train) != rows(second.train) or not torch.equal(first.train.x, second.train.x)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("share", [None, 0.0, 0.2])
@pytest.mark.parametrize("own", [None, (80, 0, 20), (60, 20, 20)])
def test_parts_are_disjoint_and_cover_the_source(share, own):
    x = np.concatenate([PIXELS, PIXELS, PIXELS[:20]])
    options = Options(validation=share)
    dataset = arrays.build(data.options.Request("x", None, options), x, None, own=own)
    numbers = list(itertools.chain.from_iterable(map(rows, parts(dataset))))
    assert sorted(numbers) == list(range(100))
    assert (dataset.validation is None) == (share == 0.0)
    if own is not None:
        assert rows(dataset.test) == list(range(100 - own[2], 100))
    assert dataset.spec.size == len(dataset.train)


def test_default_validation_shares():
    x = np.zeros((1000, 4, 4), dtype=np.uint8)
    drawn = data.from_arrays(x)
    assert [len(part) for part in parts(drawn)] == [800, 100, 100]
    own = arrays.build(data.options.Request("x", None, Options()), x, None, own=(900, 0, 100))
    assert [len(part) for part in parts(own)] == [855, 45, 100]


def test_splits_share_one_storage():
    dataset = data.from_arrays(PIXELS)
    assert len({part.x.data_ptr() for part in parts(dataset)}) == 1


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_points_lie_around_the_mode_that_their_label_names(name):
    dataset = data.load(name)
    batch = dataset.test.batch(torch.arange(2000))
    centres = toys.modes(name)
    of = [int(label) for label in np.array(dataset.spec.label.names)[batch.label]]
    away = dataset.codec.show(batch.x) - centres[of]
    assert set(of) == set(range(len(centres)))
    assert np.abs(away.std(0) - toys.SIGMA).max() < 0.01
    assert np.abs(away).max() < 6 * toys.SIGMA


def test_checkerboard_leaves_every_other_square_empty():
    dataset = data.load("checkerboard")
    points = dataset.codec.show(dataset.test.batch(torch.arange(5000)).x)
    squares = np.floor(points / 2).astype(int)
    assert set(squares.sum(1) % 2) == {0}
    assert len({tuple(square) for square in squares}) == 8
    assert np.abs(points).max() <= 4 + 1e-5


def test_standardised_on_the_training_rows_alone():
    x = np.random.default_rng(0).normal([3, -5], [2, 0.5], (200, 2))
    dataset = data.from_arrays(x)
    train = dataset.train.batch(torch.arange(len(dataset.train))).x
    assert torch.allclose(train.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(2), atol=1e-5)
    assert np.allclose(dataset.codec.mean, x[rows(dataset.train)].mean(0))


def test_a_constant_feature_is_centred_with_a_note():
    x = np.random.default_rng(0).normal(size=(50, 2))
    x[:, 1] = 0.1
    dataset = data.from_arrays(x)
    assert dataset.codec.std[1] == 1
    assert whole(dataset).x[:, 1].abs().max() < 1e-6
    assert any("never change" in note for note in dataset.notes)


def test_fingerprint_follows_content_and_shaping_options(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, PIXELS)
    first = data.load(path).fingerprint
    assert data.load(path, Options(flip=True)).fingerprint == first
    assert data.load(path, Options(size="4")).fingerprint != first
    np.save(path, 255 - PIXELS)
    assert data.load(path).fingerprint != first


def test_a_built_in_name_wins_over_a_path_without_a_slash(tmp_path, monkeypatch):
    save_images(tmp_path / "digits", PIXELS[:3])
    monkeypatch.chdir(tmp_path)
    assert data.load("digits").spec.shape == (1, 8, 8)
    assert data.load("./digits").spec.shape == (1, 6, 8)


def test_import_leaves_tables_and_pictures_alone():
    code = "import sys, pofx.data; pofx.data.names(); print(sorted({'pandas', 'pyarrow', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------------
# Randomness of batches


def test_mirroring_is_a_function_of_the_seed_and_of_training_alone():
    dataset = data.from_arrays(PIXELS, options=Options(flip=True))
    positions = torch.arange(len(dataset.train))
    plain = dataset.train.batch(positions).x
    first, again, other = (dataset.train.batch(positions, training=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for row, image in zip(first, plain, strict=True):
        assert torch.equal(row, image) or torch.equal(row, image.flip(-1))
    held = dataset.validation
    assert torch.equal(held.batch(torch.arange(2), training=1).x, held.batch(torch.arange(2)).x)


def test_binarisation_is_fixed_on_test_and_fresh_in_training_with_the_grey_value_as_its_mean():
    x = np.full((300, 8, 8), 64, dtype=np.uint8)
    dataset = data.from_arrays(x, options=Options(bits=1))
    assert dataset.spec.bits == 1
    positions = torch.arange(len(dataset.train))
    first, again, other = (dataset.train.batch(positions, training=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert abs(float(first.mean()) - 64 / 255) < 0.02
    assert dataset.test.draw_hash() == data.from_arrays(x, options=Options(bits=1, validation=0.2)).test.draw_hash()
    assert dataset.test.draw_hash() != dataset.validation.draw_hash()


# ---------------------------------------------------------------------------------------------------------------
# Labels


def test_labelled_keeps_so_many_balanced_labels_of_training_examples_only():
    full, dataset = data.load("digits"), data.load("digits", Options(labelled=25))
    label = dataset.train.batch(torch.arange(len(dataset.train))).label
    counts = torch.bincount(label[label >= 0], minlength=10)
    assert counts.sum() == 25
    assert set(counts.tolist()) == {2, 3}
    true = full.train.batch(torch.arange(len(full.train))).label
    assert torch.equal(label[label >= 0], true[label >= 0])
    assert (dataset.test.batch(torch.arange(len(dataset.test))).label >= 0).all()
    same = data.load("digits", Options(labelled=25)).train.batch(torch.arange(len(dataset.train))).label
    assert torch.equal(label, same)


def test_labelled_takes_all_of_a_rare_class():
    label = np.array([0] * 90 + [1] * 10)
    dataset = data.from_arrays(np.random.default_rng(0).random((100, 3)), label, Options(labelled=60, validation=0))
    kept = dataset.train.batch(torch.arange(len(dataset.train))).label
    truth = data.from_arrays(np.zeros((100, 4, 4), np.uint8), label, Options(validation=0))
    rare = int((truth.train.batch(torch.arange(len(truth.train))).label == 1).sum())
    assert int((kept == 1).sum()) == rare
    assert int((kept == 0).sum()) == 60 - rare


def test_labelled_more_than_there_are_and_without_labels():
    assert "labelled" in refuse("digits", Options(labelled=10_000))
    assert "labelled" in refuse("checkerboard", Options(labelled=3))


@pytest.mark.parametrize(
    ("label", "kind", "missing"),
    [
        (np.array(["b", "a", ""] * 4), Classes(("a", "b")), 4),
        (np.array([10, 9, -1] * 4), Classes(("9", "10")), 4),
        (np.array([[0, 1], [1, 1], [-1, 0]] * 4), Attributes(("label 0", "label 1")), 4),
        (np.array([[0.0, -1.0], [1.0, np.nan]] * 6), Attributes(("label 0", "label 1")), 12),
        (np.array([[1, -1], [-1, 1]] * 6), Attributes(("label 0", "label 1")), 0),
        (np.array([0.5, 2.5, np.nan] * 4), Values(("label",)), 4),
    ],
)
def test_labels_of_arrays(label, kind, missing):
    batch = whole(dataset := data.from_arrays(np.zeros((12, 4, 4), np.uint8), label))
    assert (type(dataset.spec.label), dataset.spec.label.names) == (type(kind), kind.names)
    absent = batch.label.isnan() if isinstance(kind, Values) else batch.label == -1
    assert int(absent.sum()) == missing
    assert batch.label.dtype == (torch.float32 if isinstance(kind, Values) else torch.int64)


# ---------------------------------------------------------------------------------------------------------------
# Arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 5), (5,)), ((20, 6, 8), (1, 6, 8)), ((20, 3, 6, 8), (3, 6, 8)), ((20, 7, 5, 3), (3, 7, 5)), ((20, 7, 5, 1), (1, 7, 5))],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_the_shape_says_what_an_array_is(tmp_path, shape, expected, dtype):
    values = np.random.default_rng(0).random(shape)
    array = values.astype(dtype) if "float" in dtype else (values * 255).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    dataset = data.load(tmp_path / "x.npy")
    assert dataset.spec.shape == expected
    assert dataset.spec.bits == (8 if len(shape) > 2 and "int" in dtype else None)
    back = dataset.codec.show(whole(dataset).x)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.allclose(back, array, atol=1e-6)


def test_kind_overrides_the_shape_and_is_the_way_to_sequences():
    x = np.random.default_rng(0).normal(2, 3, (60, 7, 2))
    sequences = data.from_arrays(x, options=Options(kind="sequences"))
    assert sequences.spec.kind == "sequences"
    assert sequences.spec.shape == (7, 2)
    assert np.allclose(sequences.codec.show(whole(sequences).x), x, atol=1e-5)
    flat = data.from_arrays(x, options=Options(kind="vectors"))
    assert flat.spec.shape == (14,)
    assert np.allclose(flat.codec.show(whole(flat).x), x, atol=1e-5)
    # As many values, so the density of an example changes by as much as its steps' together.
    assert sequences.codec.log_jacobian() == pytest.approx(-7 * np.log(sequences.codec.std).sum())
    assert data.from_arrays(x[..., 0], options=Options(kind="sequences")).spec.shape == (7, 1)


def test_a_large_file_is_mapped_and_never_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAPPED", 100)
    for name, array in (("grey", PIXELS), ("colour", np.stack([PIXELS] * 3, -1))):
        np.save(tmp_path / f"{name}.npy", array)
        loads = []
        load = np.load
        monkeypatch.setattr(np, "load", lambda *a, load=load, loads=loads, **k: loads.append(load(*a, **k)) or loads[-1])
        dataset = data.load(tmp_path / f"{name}.npy")
        monkeypatch.setattr(np, "load", load)
        (mapped,) = loads
        assert isinstance(mapped, np.memmap)
        assert dataset.train.x.data_ptr() == mapped.ctypes.data
        assert np.array_equal(dataset.codec.show(whole(dataset).x), array)


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAPPED", 1)
    path = tmp_path / "x"
    path.write_bytes(b"one")
    first = files.digest(path)
    assert files.digest(path) == first
    path.write_bytes(b"other")
    assert files.digest(path) != first


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_size_crops_the_centre_or_pads_with_black(fit):
    x = np.full((20, 6, 12), 200, dtype=np.uint8)
    x[:, :, :3] = x[:, :, 9:] = 0
    dataset = data.from_arrays(x, options=Options(size="8x8", fit=fit))
    batch = whole(dataset)
    assert dataset.spec.shape == (1, 8, 8)
    inside = 200 / 255
    if fit == "crop":
        assert torch.allclose(batch.x[:, :, :, 2:6], torch.tensor(inside), atol=0.02)
    else:
        assert batch.x[:, :, :2].abs().max() == 0
        assert torch.allclose(batch.x[:, :, 3:5, 3:5], torch.tensor(inside), atol=0.02)


def test_bits_8_quantises_floats():
    x = np.random.default_rng(0).random((20, 4, 4)).astype(np.float32)
    dataset = data.from_arrays(x, options=Options(bits=8))
    assert dataset.spec.bits == 8
    levels = whole(dataset).x * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((2, 3, 4, 5, 6)), "shape"),
        (np.zeros((2, 5, 4, 5)), "channels"),
        (np.zeros((0, 5)), "shape"),
        (np.full((3, 4), np.nan), "finite"),
        (np.array([[0.0, 1], [np.inf, 2]]), "finite"),
        (np.full((3, 4, 4), 1.5), "[0, 1]"),
        (np.full((3, 4, 4), 300), "255"),
        (np.zeros((3, 4), dtype=complex), "complex"),
        (np.array([["a"]]), "numbers"),
    ],
)
def test_bad_arrays(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array)
    message = refuse(tmp_path / "x.npy")
    assert says in message
    assert "x.npy" in message


def test_bad_array_files(tmp_path):
    np.savez(tmp_path / "object.npz", x=np.array([{}, None], dtype=object))
    assert "Python objects" in refuse(tmp_path / "object.npz")
    np.savez(tmp_path / "label.npz", x=PIXELS, label=np.array([None] * len(PIXELS), dtype=object))
    assert "Python objects" in refuse(tmp_path / "label.npz")
    np.savez(tmp_path / "y.npz", y=PIXELS)
    assert "name the array of examples x" in refuse(tmp_path / "y.npz")
    np.savez(tmp_path / "few.npz", x=PIXELS, label=np.arange(3))
    assert "3 labels" in refuse(tmp_path / "few.npz")
    np.save(tmp_path / "x.npy", PIXELS)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    assert "cut.npy is not a whole" in refuse(tmp_path / "cut.npy")
    (tmp_path / "text.npz").write_text("no archive")
    assert "text.npz is not a whole" in refuse(tmp_path / "text.npz")


# ---------------------------------------------------------------------------------------------------------------
# Options and names


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("python_docs", Options(flip=True), "--data.flip"),
        ("python_docs", Options(labelled=3), "--data.labelled"),
        ("python_docs", Options(kind="images"), "tokens"),
        ("ring", Options(size="8"), "--data.size"),
        ("ring", Options(bits=1), "--data.bits"),
        ("ring", Options(kind="images"), "images"),
        ("digits", Options(tokens="bytes"), "--data.tokens"),
        ("digits", Options(label="age"), "--data.label"),
        ("digits", Options(missing="drop"), "--data.missing"),
        ("digits", Options(on_error="skip"), "--data.on-error"),
        ("digits", Options(kind="tokens"), "tokens"),
    ],
)
def test_an_option_without_meaning_is_refused_by_name(source, options, says):
    assert says in refuse(source, options)


@pytest.mark.parametrize("size", ["", "x8", "8x", "0", "8x0", "8x8x8", "-3", "99999"])
def test_bad_sizes(size):
    with pytest.raises(UsageError, match="size"):
        Options(size=size)


def test_options_survive_json():
    options = Options(size="8x6", bits=1, labelled=4, validation=0.1)
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_unknown_data_name_the_nearest(tmp_path):
    assert "digits" in refuse("digts")
    assert "fashion_mnist" in refuse("fashion-mnist")
    (tmp_path / "flowers.npz").touch()
    assert "flowers.npz" in refuse(str(tmp_path / "flower.npz"))
    assert "ring" in refuse("zzzzzz")
    (tmp_path / "film.mp4").touch()
    assert ".npy" in refuse(tmp_path / "film.mp4")
    refuse("")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    for name in ("x.npy", "x.txt", "x.csv", "x-idx3-ubyte"):
        (tmp_path / name).write_bytes(b"1")
        (tmp_path / name).chmod(0)
        assert "may not be read" in refuse(tmp_path / name)


# ---------------------------------------------------------------------------------------------------------------
# IDX


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_with_its_labels_and_test_part(tmp_path, zipped):
    for name, array in (("train", PIXELS), ("t10k", PIXELS[:7])):
        for kind, content in (("images-idx3", array), ("labels-idx1", np.arange(len(array), dtype=np.uint8) % 3)):
            body = idx(content)
            (tmp_path / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}").write_bytes(gzip.compress(body) if zipped else body)
    dataset = data.load(tmp_path / f"train-images-idx3-ubyte{'.gz' if zipped else ''}")
    assert rows(dataset.test) == list(range(40, 47))
    assert dataset.spec.label == Classes(("0", "1", "2"))
    batch = dataset.test.batch(torch.arange(7))
    assert np.array_equal(dataset.codec.show(batch.x), PIXELS[:7])
    assert batch.label.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_bad_idx(tmp_path):
    good = idx(PIXELS)
    for name, body, says in (
        ("magic", b"\1\2" + good[2:], "not an IDX"),
        ("type", good[:2] + b"\x42" + good[3:], "not an IDX"),
        ("empty", b"", "nothing"),
        ("short", good[:-1], "ends after"),
        ("long", good + b"\0", "goes on"),
        ("header", good[:9], "header"),
        ("huge", struct.pack(">HBB4I", 0, 8, 4, *[2**32 - 1] * 4), "ends after"),
    ):
        path = tmp_path / f"{name}-images-idx3-ubyte"
        path.write_bytes(body)
        assert says in refuse(path)
    path = tmp_path / "cut-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(good)[:-20])
    assert "not a whole .gz" in refuse(path)
    path.write_bytes(good)
    assert "not a whole .gz" in refuse(path)


@pytest.mark.skipif(not FASHION.exists(), reason="the system has no Fashion-MNIST")
def test_fashion_mnist_of_the_system():
    dataset = data.load("fashion_mnist")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (57_000, 3_000, 10_000)
    assert dataset.spec.label.names[9] == "Ankle boot"
    assert torch.bincount(dataset.test.label[60_000:]).tolist() == [1000] * 10


# ---------------------------------------------------------------------------------------------------------------
# Text


def test_text_windows_cover_each_part_once_and_parts_stand_in_file_order(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list("abc\nñ"), 3001))
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    dataset = data.load(tmp_path / "x.txt")
    assert dataset.spec.vocabulary == 6
    assert [len(part) for part in parts(dataset)] == [2646, 54, 301]
    for split, expected in zip(parts(dataset), (text[:2646], text[2646:2700], text[2700:]), strict=True):
        read = "".join(dataset.codec.decode(row) for batch in split.batches(4, window=16) for row in batch.x)
        assert read == expected
    assert "".join(dataset.codec.decode(part.x) for part in parts(dataset)) == text
    assert dataset.codec.decode(data.everything(dataset).x) == text


def test_text_validation_share(tmp_path):
    (tmp_path / "x.txt").write_text("ab" * 500)
    assert data.load(tmp_path / "x.txt", Options(validation=0)).validation is None
    assert len(data.load(tmp_path / "x.txt", Options(validation=0.5)).validation) == 450


def test_unseen_characters_are_one_unknown_symbol(tmp_path):
    (tmp_path / "x.txt").write_text("ab" * 450 + "ab" * 48 + "zéab", encoding="utf-8")
    dataset = data.load(tmp_path / "x.txt")
    assert dataset.codec.symbols == "ab"
    assert dataset.test.x[-4:].tolist() == [2, 2, 0, 1]
    assert any("2 of 1,000" in note for note in dataset.notes)


def test_bytes_read_anything(tmp_path):
    (tmp_path / "x.txt").write_bytes(bytes(range(256)) * 4)
    dataset = data.load(tmp_path / "x.txt", Options(tokens="bytes"))
    assert dataset.spec.vocabulary == 256
    assert data.everything(dataset).x.tolist() == list(range(256)) * 4


def test_bad_texts(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"")
    assert "empty" in refuse(path)
    path.write_bytes(b"abc\xff\xfe")
    assert "byte 3" in refuse(path)
    path.write_bytes("\ufeff".encode())
    assert "empty" in refuse(path)


@pytest.mark.skipif(not (SHARED / "tiny_shakespeare.txt").exists(), reason="no copy of tiny shakespeare beside the repository")
def test_tiny_shakespeare_splits_as_published():
    path = files.cache() / "downloads" / "tiny_shakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes((SHARED / "tiny_shakespeare.txt").read_bytes())
    dataset = data.load("tiny_shakespeare")
    assert len(dataset.train) + len(dataset.validation) == 1_003_854
    assert len(dataset.test) == 111_540
    assert dataset.spec.vocabulary == 65 + 1


# ---------------------------------------------------------------------------------------------------------------
# The codec of a run


def test_another_source_is_read_with_the_codec_of_the_run(tmp_path):
    run = data.from_arrays(PIXELS, np.array([7, 8] * 20))
    other = data.from_arrays(np.random.default_rng(1).random((30, 12, 16)), np.array([8, 9, 7] * 10), codec=run.codec)
    assert other.codec == run.codec
    assert other.spec.shape == run.spec.shape
    assert other.spec.bits == 8
    assert other.spec.label == run.spec.label
    assert whole(other).label.tolist() == [1, -1, 0] * 10
    assert any("9" in note for note in other.notes)


def test_vectors_keep_the_scale_of_the_run():
    x = np.random.default_rng(0).normal(5, 2, (50, 3))
    run = data.from_arrays(x)
    other = data.from_arrays(x[:20] + 100, codec=run.codec)
    assert torch.allclose(whole(other).x, whole(run).x[:20] + 100 / torch.tensor(run.codec.std), atol=1e-4)


def test_texts_keep_the_vocabulary_of_the_run(tmp_path):
    (tmp_path / "one.txt").write_text("abcd" * 50)
    (tmp_path / "two.txt").write_text("dcxb" * 50)
    run = data.load(tmp_path / "one.txt")
    other = data.load(tmp_path / "two.txt", codec=run.codec)
    assert other.spec.vocabulary == 5
    assert other.train.x[:4].tolist() == [3, 2, 4, 1]


def test_data_of_another_kind_or_shape_do_not_fit_a_run(tmp_path):
    grey = data.from_arrays(PIXELS).codec
    (tmp_path / "x.txt").write_text("abc")
    np.save(tmp_path / "colour.npy", np.stack([PIXELS] * 3, 1))
    np.save(tmp_path / "vectors.npy", np.zeros((4, 3)))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n")
    assert "text" in refuse(tmp_path / "x.txt", codec=grey)
    assert "channels" in refuse(tmp_path / "colour.npy", codec=grey)
    refuse(tmp_path / "vectors.npy", codec=grey)
    assert "table" in refuse(tmp_path / "x.csv", codec=grey)
    vectors = data.from_arrays(np.eye(4)).codec
    assert "shape" in refuse(tmp_path / "vectors.npy", codec=vectors)
    tokens = data.load(tmp_path / "x.txt").codec
    refuse("digits", codec=tokens)
    assert "size" in refuse("digits", Options(size="9"), codec=data.load("digits").codec)


@pytest.mark.parametrize("name", EMBEDDED)
def test_codecs_survive_json(name):
    codec = data.load(name).codec
    assert data.codec_from_json(json.loads(json.dumps(codec.to_json()))) == codec


def test_an_unknown_codec_is_refused():
    with pytest.raises(UsageError, match="sound"):
        data.codec_from_json({"name": "sound"})
    with pytest.raises(UsageError, match="another version"):
        data.codec_from_json({"name": "images", "colour": True})
