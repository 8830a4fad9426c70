"""CIFAR-10 in its binary version.

References:
    Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import pathlib
import tarfile

import numpy as np
import torch

from pofx.core import Classes, UsageError
from pofx.data import arrays
from pofx.data.dataset import Dataset
from pofx.data.download import fetch
from pofx.data.labels import Labels
from pofx.data.options import Request

NAMES = {"cifar10": "60,000 colour photographs, 32x32, 10 classes; downloaded (170 MB)"}

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_PARTS = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: One byte of label, then the red, green and blue planes.
_ROW = 1 + 3 * 32 * 32


def matches(path: pathlib.Path) -> bool:
    """No file is read here."""
    return False


def load(request: Request) -> Dataset:
    """The photographs, read straight out of the archive, so that nothing in it can name a place to write to."""
    records = read(fetch(_URL, "cifar10/cifar-10-binary.tar.gz", _SHA256))
    own = (sum(len(part) for part in records[:-1]), 0, len(records[-1]))
    rows = np.concatenate(records)
    labels = Labels(torch.from_numpy(rows[:, 0].astype(np.int64)), Classes(_CLASSES))
    x = np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32)
    return arrays.build(request, x, labels, own=own, content=_SHA256)


def read(path: pathlib.Path) -> list[np.ndarray]:
    """The records (n, 3073) of each part of the archive, test last. Raises `UsageError` for an archive without them."""
    found = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isfile() and name in _PARTS else None
                if file is not None:
                    # At most the published 10,000 records, whatever a member claims to hold.
                    found[name] = np.frombuffer(file.read(10_000 * _ROW), dtype=np.uint8)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{path} is not a whole archive ({error}): remove it to have it downloaded again") from error
    for name in _PARTS:
        if name not in found or not len(found[name]) or len(found[name]) % _ROW:
            raise UsageError(f"{path} lacks a whole {name}: remove it to have it downloaded again")
    return [found[name].reshape(-1, _ROW) for name in _PARTS]
