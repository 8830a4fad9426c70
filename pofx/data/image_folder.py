"""A folder of PNG, JPEG, PGM, BMP or WebP files; sub-folders are labels, or a labels.csv beside the images has them."""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
from collections import Counter
from typing import Any

import filelock
import numpy as np

from pofx.core import UsageError
from pofx.data import arrays
from pofx.data.dataset import Dataset
from pofx.data.decoding import decode
from pofx.data.files import MAPPED, cache, digest, make_folder
from pofx.data.images import ImageCodec
from pofx.data.labels import Labels, chosen_columns, from_array, from_names, natural
from pofx.data.options import Request

NAMES: dict[str, str] = {}
READS = "folders of images, or one"

ENDINGS = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".pbm", ".bmp", ".webp")
#: First-level folders with these names are the source's own parts.
_PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}


def matches(path: pathlib.Path) -> bool:
    """Whether it is a folder, or one image."""
    return path.is_dir() or path.name.lower().endswith(ENDINGS)


def load(request: Request) -> Dataset:
    """The data set of a folder. Images are decoded once, into the cache; grey images stay grey unless one has colour.

    Raises `UsageError` for a folder without images, images of several sizes (unless `--data.size` says to which they are
    brought), and an image that cannot be read (unless `--data.on-error skip`).
    """
    if request.file.is_file():
        return _load(dataclasses.replace(request, path=request.file.parent), [request.file.name])
    root = request.file
    if (root / "run.json").is_file() and (root / "checkpoints").is_dir():
        raise UsageError(f"{root} is a run that `pofx train` made, not data: give the data that it was trained on, or others")
    names = _files(root)
    if not names:
        state = "is empty" if not any(root.iterdir()) else f"holds no images ({', '.join(ENDINGS)})"
        raise UsageError(f"{root} {state}: give a folder of images")
    return _load(request, names)


def _load(request: Request, names: list[str]) -> Dataset:
    """The data set of some images of a folder."""
    root, options = request.file, request.options
    table = root / "labels.csv"
    if options.label is not None and not table.is_file():
        raise UsageError(f"--data.label names a column of labels.csv, and {root} has no such file: leave it out")
    stats = [(root / name).stat() for name in names]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True)]
    content = _hash(listing, digest(table) if table.is_file() else None)
    size = (request.codec.height, request.codec.width) if isinstance(request.codec, ImageCodec) else None
    folder = cache() / "images" / _hash(listing, options.size, size, options.fit, options.on_error)[:32]
    make_folder(folder.parent)
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            decode(request, names, folder)
    found = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    x = np.load(folder / "x.npy", mmap_mode="r" if (folder / "x.npy").stat().st_size > MAPPED else None, allow_pickle=False)
    kept, notes = found["names"], list(found["notes"])
    own, labels = _labels(request, kept, notes)
    also = ("label", "on_error", "size", "fit")
    dataset = arrays.build(request, x, labels, own=own, content=content, notes=tuple(notes), also=also)
    if dataset.spec.kind == "images" and request.codec is None and isinstance(dataset.codec, ImageCodec):
        # The cache has channels first; the files have them last, or none.
        layout = "hw" if x.shape[1] == 1 else "hwc"
        dataset = dataclasses.replace(dataset, codec=dataclasses.replace(dataset.codec, layout=layout))
    return dataset


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _files(root: pathlib.Path) -> list[str]:
    """Images below a folder, in natural order; links are followed, each folder once, and hidden names left out."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        relative = pathlib.PurePath(folder).relative_to(root)
        found += [
            (relative / name).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(ENDINGS) and os.path.isfile(os.path.join(folder, name))
        ]
    # A source's own parts stand one after the other.
    return sorted(found, key=lambda name: (_PARTS.get(name.split("/")[0], 0), [natural(part) for part in name.split("/")], name))


def _labels(request: Request, names: list[str], notes: list[str]) -> tuple[tuple[int, int, int] | None, Labels | None]:
    """The source's own parts, where its folders are named so, and the labels."""
    paths = [name.split("/") for name in names]
    first = {path[0] for path in paths if len(path) > 1}
    own = None
    if all(len(path) > 1 for path in paths) and first <= set(_PARTS) and any(_PARTS[name] == 0 for name in first):
        counts = Counter(_PARTS[path[0]] for path in paths)
        own = (counts[0], counts[1], counts[2])
        paths = [path[1:] for path in paths]
    if (request.file / "labels.csv").is_file():
        return own, _labels_csv(request, names, notes)
    folders = [path[0] if len(path) > 1 else None for path in paths]
    return own, from_names(folders) if len(set(folders) - {None}) > 1 else None


def _labels_csv(request: Request, names: list[str], notes: list[str]) -> Labels:
    """Labels from the file name and the other columns of labels.csv: one column of classes or values, or several of 0
    and 1 (attributes) or numbers (values)."""
    path = request.file / "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from error
    if len(header) < 2 or not rows or any(len(row) != len(header) for row in rows):
        raise UsageError(f"{path} must have a line of column names, then a file name and its labels in each line")
    columns = header[1:]
    chosen = [columns.index(name) for name in chosen_columns(request.options.label, columns, str(path))] or list(range(len(columns)))
    cells = {row[0].strip().removeprefix("./"): [row[1 + i].strip() for i in chosen] for row in rows}
    unused, without = len(cells.keys() - set(names)), len(set(names) - cells.keys())
    if unused == len(cells):
        raise UsageError(
            f"{path} names none of the images (its first is {rows[0][0]!r}, theirs is {names[0]!r}): use their paths in the folder"
        )
    notes += [f"{unused:,} lines of labels.csv name no image"] if unused else []
    notes += [f"{without:,} images are not in labels.csv and have no label"] if without else []
    table = [cells.get(name, [""] * len(chosen)) for name in names]
    picked = [columns[i] for i in chosen]
    try:
        numbers = np.array([[float(cell) if cell else np.nan for cell in row] for row in table])
    except ValueError as error:
        if len(picked) > 1:
            raise UsageError(f"several columns of {path} are labels only as numbers ({error}): choose one with --data.label") from error
        return from_names([row[0] or None for row in table])
    if len(picked) == 1 and all(not row[0] or row[0].lstrip("-").isdecimal() for row in table):
        return from_array(np.array([int(row[0]) if row[0] else -1 for row in table]), picked, source=str(path))
    return from_array(numbers if len(picked) > 1 else numbers[:, 0], picked, source=str(path))
