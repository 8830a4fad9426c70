"""Laws of image folders: every size, grey and colour, labels by folder or table, damage named or skipped."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_support import PIXELS, SHARED, own_cache, parts, refuse, rows, save_images, whole  # noqa: F401

from pofx import data
from pofx.core import Attributes, Classes, UsageError, Values
from pofx.data import Options, decoding, everything, images


@pytest.mark.parametrize("ending", [".png", ".pgm", ".bmp", ".webp", ".jpg"])
def test_every_format_of_grey_images(tmp_path, ending):
    save_images(tmp_path / "set", PIXELS[:12], ending)
    dataset = data.load(tmp_path / "set")
    assert dataset.spec.shape == (1, 6, 8)
    assert dataset.spec.bits == 8
    back = dataset.codec.show(whole(dataset).x)
    assert back.shape == (12, 6, 8)
    if ending in (".png", ".pgm", ".bmp"):
        assert np.array_equal(back, PIXELS[:12])


def test_colour_where_one_image_has_it_and_grey_where_colour_files_have_none(tmp_path):
    grey = [np.stack([image] * 3, -1) for image in PIXELS[:4]]
    save_images(tmp_path / "grey", grey)
    assert data.load(tmp_path / "grey").spec.shape == (1, 6, 8)
    assert np.array_equal(data.load(tmp_path / "grey").codec.show(whole(data.load(tmp_path / "grey")).x), PIXELS[:4])
    grey[2] = grey[2].copy()
    grey[2][0, 0] = [255, 0, 0]
    save_images(tmp_path / "colour", grey)
    coloured = data.load(tmp_path / "colour")
    assert coloured.spec.shape == (3, 6, 8)
    assert np.array_equal(coloured.codec.show(whole(coloured).x), np.stack(grey))


def test_sixteen_bits_transparency_and_orientation(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(np.full((4, 6), 0x8080, dtype=np.uint16)).save(folder / "0.png")
    assert whole(data.load(folder)).x.unique().tolist() == pytest.approx([128 / 255])
    clear = np.zeros((4, 6, 4), dtype=np.uint8)
    Image.fromarray(clear).save(folder / "0.png")
    assert whole(data.load(folder)).x.unique().tolist() == [1.0]
    turned = Image.fromarray(np.zeros((4, 6), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "0.jpg", exif=exif)
    (folder / "0.png").unlink()
    assert data.load(folder).spec.shape == (1, 6, 4)


def test_sub_folders_are_classes_in_natural_order(tmp_path):
    for name in ("s10", "s2", "s1"):
        save_images(tmp_path / name, PIXELS[:3])
    dataset = data.load(tmp_path)
    assert dataset.spec.label == Classes(("s1", "s2", "s10"))
    assert whole(dataset).label.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_folders_named_train_and_test_are_the_sources_own_parts(tmp_path):
    for part, count in (("train", 20), ("val", 4), ("test", 6)):
        for of in ("a", "b"):
            save_images(tmp_path / part / of, PIXELS[:count])
    dataset = data.load(tmp_path)
    assert [len(part) for part in parts(dataset)] == [40, 8, 12]
    assert rows(dataset.test) == list(range(48, 60))
    assert dataset.spec.label == Classes(("a", "b"))


@pytest.mark.parametrize(
    ("table", "label", "expected"),
    [
        ("file,kind\n0.png,cat\n1.png,dog\n3.png,cat\n", [0, 1, -1, 0], Classes(("cat", "dog"))),
        ("file,smiles,hat\n0.png,1,0\n1.png,0,0\n2.png,1,1\n3.png,0,1\n", [[1, 0], [0, 0], [1, 1], [0, 1]], Attributes(("smiles", "hat"))),
        ("file,x,y\n0.png,1.5,2\n1.png,3,4\n2.png,5,6\n3.png,7,8\n", [[1.5, 2], [3, 4], [5, 6], [7, 8]], Values(("x", "y"))),
        ("file,age\n0.png,30\n1.png,8\n2.png,30\n3.png,9\n", [2, 0, 2, 1], Classes(("8", "9", "30"))),
    ],
)
def test_labels_beside_images(tmp_path, table, label, expected):
    save_images(tmp_path / "set", PIXELS[:4])
    (tmp_path / "set" / "labels.csv").write_text(table)
    dataset = data.load(tmp_path / "set")
    assert dataset.spec.label == expected
    assert whole(dataset).label.tolist() == label
    (tmp_path / "set" / "labels.csv").write_text(table.replace("1.png", "unused.png"))
    assert data.load(tmp_path / "set").fingerprint != dataset.fingerprint


def test_a_column_of_labels_beside_images(tmp_path):
    save_images(tmp_path / "set", PIXELS[:3])
    table = tmp_path / "set" / "labels.csv"
    table.write_text("file,kind,age\n0.png,a,1\n1.png,b,2\n2.png,a,1\n")
    assert data.load(tmp_path / "set", Options(label="kind")).spec.label == Classes(("a", "b"))
    assert data.load(tmp_path / "set", Options(label="age")).spec.label == Classes(("1", "2"))
    assert "--data.label" in refuse(tmp_path / "set")
    assert "colour" in refuse(tmp_path / "set", Options(label="colour"))
    table.write_text("file,kind\nother.png,a\n")
    assert "none of the images" in refuse(tmp_path / "set")
    table.write_text("file\n")
    assert "column names" in refuse(tmp_path / "set")
    table.unlink()
    assert "labels.csv" in refuse(tmp_path / "set", Options(label="kind"))


def test_mixed_sizes_need_a_size(tmp_path):
    save_images(tmp_path / "set", [*PIXELS[:3], PIXELS[3][:, :6], PIXELS[4][:4]])
    message = refuse(tmp_path / "set")
    assert "6x8 (3)" in message
    assert "--data.size" in message
    for fit in ("crop", "pad"):
        dataset = data.load(tmp_path / "set", Options(size="5x7", fit=fit))
        assert dataset.spec.shape == (1, 5, 7)
        assert any("5x7" in note and "5 of 5, such as" in note for note in dataset.notes)


def test_a_coloured_image_among_grey_ones_is_named_where_the_run_has_grey_ones(tmp_path):
    save_images(tmp_path / "grey", PIXELS[:3])
    codec = data.load(tmp_path / "grey").codec
    save_images(tmp_path / "mixed", PIXELS[:3])
    Image.fromarray(np.tile(np.array([255, 0, 0], np.uint8), (6, 8, 1))).save(tmp_path / "mixed" / "red.png")
    with pytest.raises(UsageError, match=r"red\.png is coloured, and the run models grey images"):
        data.load(tmp_path / "mixed", codec=codec)


def test_one_truncated_image_among_many_is_named_or_skipped(tmp_path):
    big = np.random.default_rng(0).integers(0, 256, (20, 40, 40), dtype=np.uint8)
    save_images(tmp_path / "set", big)
    for name, keep in (("7.png", 700), ("11.png", 12)):
        path = tmp_path / "set" / name
        path.write_bytes(path.read_bytes()[:keep])
    assert "11.png cannot be read" in refuse(tmp_path / "set")
    (tmp_path / "set" / "11.png").unlink()
    message = refuse(tmp_path / "set")
    assert "7.png cannot be read" in message
    assert "--data.on-error skip" in message
    dataset = data.load(tmp_path / "set", Options(on_error="skip"))
    assert any("1 of 19" in note and "7.png" in note for note in dataset.notes)
    assert np.array_equal(dataset.codec.show(whole(dataset).x), big[[i for i in range(20) if i not in (7, 11)]])


def test_folders_without_usable_images(tmp_path):
    assert "is empty" in refuse(tmp_path)
    (tmp_path / "notes.md").touch()
    assert "holds no images" in refuse(tmp_path)
    (tmp_path / "x.png").write_text("no image")
    assert "x.png cannot be read" in refuse(tmp_path)
    assert "no image" in refuse(tmp_path, Options(on_error="skip"))


def test_a_run_is_not_taken_for_its_pictures(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text("{}")
    Image.new("L", (8, 8)).save(tmp_path / "drawn.png")
    with pytest.raises(UsageError, match="not data"):
        data.load(tmp_path)


def test_links_in_a_circle_end(tmp_path):
    save_images(tmp_path / "set" / "a", PIXELS[:3])
    save_images(tmp_path / "set" / "b", PIXELS[:2])
    os.symlink(tmp_path / "set", tmp_path / "set" / "a" / "loop")
    assert len(data.everything(data.load(tmp_path / "set"))) == 5


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_LARGEST", 30)
    save_images(tmp_path / "set", PIXELS[:1])
    assert "more than 30" in refuse(tmp_path / "set")


def test_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    save_images(tmp_path / "set", PIXELS[:4])
    first = data.load(tmp_path / "set")
    counted = []
    decode = decoding.decode
    monkeypatch.setattr("pofx.data.image_folder.decode", lambda *a: counted.append(a) or decode(*a))
    again = data.load(tmp_path / "set")
    assert not counted
    assert again.fingerprint == first.fingerprint
    Image.fromarray(PIXELS[9]).save(tmp_path / "set" / "0.png")
    os.utime(tmp_path / "set" / "0.png", ns=(1, 1))
    changed = data.load(tmp_path / "set")
    assert len(counted) == 1
    assert changed.fingerprint != first.fingerprint
    assert np.array_equal(changed.codec.show(whole(changed).x)[0], PIXELS[9])


def test_a_full_disk_is_found_before_decoding(tmp_path, monkeypatch):
    save_images(tmp_path / "set", PIXELS[:4])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "POFX_CACHE" in refuse(tmp_path / "set")


def test_other_images_are_brought_to_the_size_of_the_run(tmp_path):
    run = data.from_arrays(PIXELS)
    save_images(tmp_path / "set", np.random.default_rng(0).integers(0, 256, (4, 12, 16), dtype=np.uint8))
    assert data.load(tmp_path / "set", codec=run.codec).spec.shape == run.spec.shape


def test_a_written_folder_reads_back_with_its_labels(tmp_path):
    run = data.from_arrays(PIXELS[:6], np.array(["a/b", "c", ""] * 2))
    batch = whole(run)
    run.codec.write(batch.x, tmp_path / "out", batch.label)
    back = data.load(tmp_path / "out")
    assert back.spec.label == Classes(("a_b", "c"))
    assert sorted(whole(back).label.tolist()) == [-1, -1, 0, 0, 1, 1]
    values = data.from_arrays(PIXELS[:4], np.array([[0.5, 1.5]] * 4))
    batch = whole(values)
    values.codec.write(batch.x, tmp_path / "values", batch.label)
    back = data.load(tmp_path / "values")
    assert torch.equal(whole(back).label, batch.label)
    assert np.array_equal(back.codec.show(whole(back).x), PIXELS[:4])
    with pytest.raises(UsageError, match="not an empty folder"):
        run.codec.write(batch.x, tmp_path / "out")


@pytest.mark.skipif(not (SHARED / "faces").exists(), reason="no faces beside the repository")
def test_the_faces():
    dataset = data.load(SHARED / "faces")
    assert dataset.spec.shape == (1, 112, 92)
    assert len(dataset.spec.label.names) == 40
    assert torch.bincount(whole(dataset).label).tolist() == [10] * 40


def test_one_picture_is_data(tmp_path):
    Image.fromarray(np.full((6, 5), 51, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "b.png")
    dataset = data.load(tmp_path / "a.png")
    assert everything(dataset).x.shape == (1, 1, 6, 5)
    assert float(everything(dataset).batch(torch.arange(1)).x.mean()) == pytest.approx(0.2)


def test_a_grid_has_a_row_for_each_class_that_was_asked_for():
    for labels, columns in (
        ([0] * 4 + [1] * 4, 4),
        ([0] * 32 + [1] * 32, 16),
        ([0, 1, 0, 1], None),
        ([0] * 8, None),
        ([0] * 3 + [1] * 2, None),
    ):
        assert images._columns(torch.tensor(labels)) == columns
    assert images._columns(torch.zeros(4, 2)) is None
