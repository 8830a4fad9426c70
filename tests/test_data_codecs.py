"""Laws of codecs: what is written comes back in the source's units, and a file is whole or not there."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data_support import PIXELS, own_cache, refuse, whole  # noqa: F401

from pofx import data
from pofx.core import Classes, UsageError, Values
from pofx.data import Options
from pofx.data.images import grid

pd = pytest.importorskip("pandas", reason="tables need pandas")

# ---------------------------------------------------------------------------------------------------------------
# Images


@pytest.mark.parametrize("shape", [(9, 6, 8), (9, 3, 6, 8), (9, 6, 8, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_come_back_in_dtype_and_layout(tmp_path, shape, dtype):
    values = np.random.default_rng(0).random(shape)
    array = (values * 255).astype(np.uint8) if dtype == "uint8" else values.astype(np.float32)
    label = np.array(["a", "b", "c"] * 3)
    dataset = data.from_arrays(array, label)
    batch = whole(dataset)
    dataset.codec.write(batch.x, tmp_path / "x.npz", batch.label)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as back:
        assert back["x"].dtype == array.dtype
        assert np.array_equal(back["x"], array)
        assert back["label"].tolist() == label.tolist()
    again = data.load(tmp_path / "x.npz", codec=dataset.codec)
    assert torch.equal(whole(again).x, batch.x)


def test_the_grid_holds_every_image_with_lines_between():
    x = torch.rand(7, 3, 40, 70)
    picture = grid(x)
    assert picture.shape == (3 * 41 - 1, 3 * 71 - 1, 3)
    for i, image in enumerate(x):
        top, left = i // 3 * 41, i % 3 * 71
        assert np.array_equal(picture[top : top + 40, left : left + 70], (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
    assert (picture[40] == 128).all()
    assert (picture[:, 70] == 128).all()


def test_small_images_are_enlarged_by_whole_factors():
    x = torch.rand(4, 1, 8, 8)
    picture = grid(x)
    assert picture.shape == (2 * 65 - 1, 2 * 65 - 1, 1)
    assert np.array_equal(picture[:64:8, :64:8, 0], (x[0, 0] * 255).round().to(torch.uint8).numpy())
    assert np.array_equal(picture[:64:8], picture[7:64:8])


def test_a_grid_picture_and_unknown_endings(tmp_path):
    dataset = data.from_arrays(PIXELS)
    x = whole(dataset).x
    dataset.codec.write(x, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), grid(x)[..., 0])
    with pytest.raises(UsageError, match=r"\.npz"):
        dataset.codec.write(x, tmp_path / "x.gif")
    with pytest.raises(UsageError, match="no images"):
        dataset.codec.write(x[:0], tmp_path / "y.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    dataset = data.from_arrays(PIXELS)
    (tmp_path / "x.npz").write_text("old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        dataset.codec.write(whole(dataset).x, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


# ---------------------------------------------------------------------------------------------------------------
# Vectors and sequences


def test_vectors_are_written_in_the_sources_units(tmp_path):
    x = np.random.default_rng(0).integers(-50, 5000, (30, 3)).astype(np.int32)
    label = np.random.default_rng(1).random(30).astype(np.float32)
    dataset = data.from_arrays(x, label)
    batch = whole(dataset)
    for ending in ("npz", "npy", "csv", "png"):
        dataset.codec.write(batch.x, tmp_path / f"x.{ending}", batch.label)
    with np.load(tmp_path / "x.npz") as back:
        assert back["x"].dtype == np.int32
        assert np.array_equal(back["x"], x)
        assert np.array_equal(back["label"][:, 0], label)
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)
    with (tmp_path / "x.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["x0", "x1", "x2", "label"]
    assert np.array_equal(np.array(lines)[:, :3].astype(int), x)
    with Image.open(tmp_path / "x.png") as picture:
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 1
    with pytest.raises(UsageError, match=r"\.csv"):
        dataset.codec.write(batch.x, tmp_path / "x.txt")


def test_log_jacobian_is_that_of_the_scaling():
    x = np.random.default_rng(0).normal(3, [0.5, 4, 20], (100, 3))
    dataset = data.from_arrays(x)

    def to_model(source):
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (dataset.codec.mean, dataset.codec.std))
        return (source - mean) / std

    jacobian = torch.autograd.functional.jacobian(to_model, torch.tensor(x[0]))
    assert dataset.codec.log_jacobian() == pytest.approx(float(jacobian.det().abs().log()))


# ---------------------------------------------------------------------------------------------------------------
# Text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_tokens_of_known_symbols_come_back(text):
    from pofx.data.text import UNKNOWN, TokenCodec

    codec = TokenCodec("chars", "".join(sorted(set(text))))
    assert codec.decode(codec.encode(text)) == text
    assert int(codec.encode(text).max()) < codec.vocabulary - 1
    known = TokenCodec("chars", text[0])
    assert known.decode(known.encode(text)) == "".join(symbol if symbol == text[0] else UNKNOWN for symbol in text)
    as_bytes = TokenCodec("bytes")
    assert as_bytes.decode(as_bytes.encode(text)) == text


def test_texts_are_written(tmp_path):
    (tmp_path / "in.txt").write_text("añb\n" * 30, encoding="utf-8")
    codec = data.load(tmp_path / "in.txt").codec
    x = torch.stack([codec.encode("añb"), codec.encode("b\na")])
    codec.write(x[:1], tmp_path / "one.txt")
    assert (tmp_path / "one.txt").read_text(encoding="utf-8") == "añb"
    codec.write(x, tmp_path / "two.jsonl")
    lines = (tmp_path / "two.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["añb", "b\na"] == codec.show(x)
    with pytest.raises(UsageError, match="jsonl"):
        codec.write(x, tmp_path / "x.png")


def test_bytes_are_written_as_they_are(tmp_path):
    (tmp_path / "in.txt").write_bytes(bytes(range(256)))
    codec = data.load(tmp_path / "in.txt", Options(tokens="bytes")).codec
    codec.write(torch.tensor([[255, 0, 13]]), tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_bytes() == b"\xff\0\r"


# ---------------------------------------------------------------------------------------------------------------
# Tables

HEADER = "id,age,height,town,member,kind\n"


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    lines = [
        f"u{i},{random.integers(18, 90) if i % 7 else ''},{random.normal(1.7, 0.1):.2f},"
        f"{('Bern', 'Zürich', '')[i % 3]},{('True', 'False')[i % 2]},{'abc'[i % 3]}\n"
        for i in range(200)
    ]
    path = tmp_path / "people.csv"
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    return path


def test_columns_of_a_table(table):
    dataset = data.load(table, Options(label="kind"))
    assert [(column.name, column.kind, column.start, column.stop) for column in dataset.spec.columns] == [
        ("age", "integer", 0, 1),
        ("age", "missing", 1, 2),
        ("height", "number", 2, 3),
        ("town", "category", 3, 6),
        ("member", "category", 6, 8),
    ]
    assert dataset.spec.shape == (8,)
    assert dataset.spec.label == Classes(("a", "b", "c"))
    assert any("id" in note and "identifier" in note for note in dataset.notes)
    assert (
        dataset.notes[-1]
        == "columns are read as numbers: height; whole numbers: age (some empty); categories: town (2, some empty), member (2)"
    )
    x = whole(dataset).x
    assert torch.equal(x[:, 1], torch.tensor([float(i % 7 == 0) for i in range(200)]))
    assert torch.equal(x[:, 3:6].sum(1), torch.ones(200))
    assert dataset.codec.log_jacobian() == pytest.approx(-sum(math.log(field.std) for field in dataset.codec.fields[:2]))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_written_table_is_the_source_again(tmp_path, table, ending):
    dataset = data.load(table, Options(label="kind"))
    batch = whole(dataset)
    dataset.codec.write(batch.x, tmp_path / f"out.{ending}", batch.label)
    source = pd.read_csv(table, dtype_backend="numpy_nullable").drop(columns="id")
    back = (
        pd.read_csv(tmp_path / "out.csv", dtype_backend="numpy_nullable") if ending == "csv" else pd.read_parquet(tmp_path / "out.parquet")
    )
    pd.testing.assert_frame_equal(back, source, check_dtype=ending == "csv", check_exact=True)
    again = data.load(tmp_path / f"out.{ending}", codec=data.codec_from_json(json.loads(json.dumps(dataset.codec.to_json()))))
    assert again.spec == dataset.spec
    assert torch.equal(whole(again).x, batch.x)
    assert torch.equal(whole(again).label, batch.label)


def test_a_table_as_lines_of_json_and_as_arrays(tmp_path, table):
    dataset = data.load(table)
    x = whole(dataset).x
    dataset.codec.write(x, tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["age"] is None
    assert first["town"] == "Bern"
    assert first["member"] is True
    dataset.codec.write(x, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as back:
        assert back["columns"].tolist() == ["age", "height", "town", "member", "kind"]
        assert math.isnan(back["x"][0, 0])
        assert json.loads(str(back["levels"]))["town"][int(back["x"][1, 2])] == "Zürich"
    with pytest.raises(UsageError, match="parquet"):
        dataset.codec.write(x, tmp_path / "out.png")


def test_drawn_rows_are_whole_numbers_within_the_training_range_and_one_category(tmp_path, table):
    dataset = data.load(table)
    codec = dataset.codec
    x = 5 * torch.randn(100, dataset.spec.shape[0], generator=torch.Generator().manual_seed(0))
    frame = codec.frame(x)
    age = frame["age"].dropna()
    assert 0 < len(age) < 100
    assert age.between(codec.fields[0].low, codec.fields[0].high).all()
    assert (age == age.round()).all()
    assert set(frame["town"].dropna()) <= {"Bern", "Zürich"}
    assert frame["town"].isna().any()


@given(
    st.lists(
        st.tuples(
            st.integers(-(10**6), 10**6),
            st.floats(-1e6, 1e6).map(lambda value: round(value, 2)),
            st.sampled_from(["a b", "ü,", 'q"', "-"]),
            st.booleans(),
        ),
        min_size=12,
        max_size=40,
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_comes_back(tmp_path, rows):
    frame = pd.DataFrame(rows, columns=["whole", "number", "text", "flag"])
    frame.to_csv(tmp_path / "in.csv", index=False)
    dataset = data.load(tmp_path / "in.csv", Options(validation=0))
    back = dataset.codec.frame(dataset.train.batch(torch.arange(len(dataset.train))).x)
    source = frame.iloc[dataset.train._rows.tolist()].reset_index(drop=True)
    scale = np.abs(source["number"]).max() + 1
    assert np.allclose(back["number"].to_numpy(float), source["number"], atol=1e-5 * scale)
    assert np.allclose(back["whole"].to_numpy(float), source["whole"], atol=1)
    assert back["text"].tolist() == source["text"].tolist()
    assert back["flag"].tolist() == source["flag"].tolist()


def test_numbers_with_many_values_are_values_and_few_integers_classes(table):
    assert data.load(table, Options(label="height")).spec.label == Values(("height",))
    ages = data.load(table, Options(label="age"))
    assert isinstance(ages.spec.label, Classes)
    assert int((whole(ages).label == -1).sum()) == sum(i % 7 == 0 for i in range(200))


def test_rows_with_empty_cells_can_be_dropped(table):
    dataset = data.load(table, Options(missing="drop"))
    kept = [i for i in range(200) if i % 7 and i % 3 != 2]
    assert len(data.everything(dataset)) == len(kept)
    assert all(column.kind != "missing" for column in dataset.spec.columns)
    assert any(f"{200 - len(kept)} of 200" in note for note in dataset.notes)


def test_cells_that_a_run_never_saw(tmp_path, table):
    codec = data.load(table, Options(label="kind")).codec
    other = tmp_path / "other.csv"
    other.write_text(HEADER + "1,30,1.7,Bern,True,a\n2,31,,Bern,True,b\n3,32,1.8,Genf,True,a\n4,33,1.6,,False,z\n")
    assert "height" in refuse(other, codec=codec)
    dataset = data.load(other, Options(on_error="skip"), codec=codec)
    assert any("2 of 4" in note for note in dataset.notes)
    assert whole(dataset).label.tolist() == [0, -1]
    other.write_text("age,town\n1,Bern\n")
    assert "height" in refuse(other, codec=codec)


def test_bad_tables(tmp_path, table):
    assert "kind" in refuse(table, Options(label="kin"))
    assert "its columns are" in refuse(table, Options(label="zzzzzzzzz"))
    path = tmp_path / "x.csv"
    for content, says in (
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("a,b\n,\n,\n", "no column"),
        ("id\n" + "".join(f"u{i}\n" for i in range(400)), "no column"),
        ("a,b\n1,2\n1,2,3,4\n", "--data.on-error skip"),
        ("a,b\n1,inf\n2,3\n", "infinite"),
    ):
        path.write_text(content)
        assert says in refuse(path)
    path.write_bytes(b"a,b\n1,\xff\n")
    assert "x.csv" in refuse(path)
    path.write_text("a,b\n1,2\n1,2,3,4\n3,4\n")
    assert len(data.everything(data.load(path, Options(on_error="skip")))) == 2
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no table")
    assert "x.parquet" in refuse(tmp_path / "x.parquet")
    both = Options(label="b", missing="drop")
    path.write_text("a,b\n,1\n,2\n3,\n")
    assert len(data.everything(data.load(path, both))) == 1


def test_tables_without_pandas_name_the_extra(table, monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *args):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    assert 'pip install "pofx[tables]"' in refuse(table)
