"""IDX, the format of MNIST: `train-images-idx3-ubyte` and its relatives, plain or .gz.

References:
    Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio and Haffner, 1998),
    https://doi.org/10.1109/5.726791
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao, Rasul and Vollgraf, 2017),
    https://arxiv.org/abs/1708.07747
"""

import gzip
import hashlib
import pathlib
import re
import struct
import zlib

import numpy as np
import torch

from pofx.core import Classes, UsageError
from pofx.data import arrays
from pofx.data.dataset import Dataset
from pofx.data.download import fetch
from pofx.data.labels import Labels, from_array
from pofx.data.options import Request

NAMES = {
    "mnist": "70,000 handwritten digits, 28x28 grey, 10 classes; downloaded (11 MB)",
    "fashion_mnist": "70,000 pictures of clothes, 28x28 grey, 10 classes; downloaded (30 MB) unless the system has them",
}
READS = "IDX files (.gz too)"

_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
_URL = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
}
_SHA256 = {
    "mnist": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion_mnist": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
#: Where Debian's package dataset-fashion-mnist puts the files.
_SYSTEM = {"fashion_mnist": pathlib.Path("/usr/share/datasets/fashion-mnist")}
_CLASSES = {
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
}
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def matches(path: pathlib.Path) -> bool:
    """Whether the file's name says that it is IDX: name-idx3-ubyte, name.idx, either with .gz."""
    return re.search(r"idx\d?(-[a-z0-9]+)?(\.gz)?$", path.name.lower()) is not None and path.is_file()


def read(path: pathlib.Path) -> np.ndarray:
    """The array of an IDX file. Raises `UsageError` for another format, a wrong length and a broken .gz."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES or not head[3]:
                raise UsageError(f"{path} is not an IDX file (it begins with {head.hex(' ') or 'nothing'}): give one, or another ending")
            sizes = file.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise UsageError(f"{path} is truncated within its header: get it again")
            shape = struct.unpack(f">{head[3]}I", sizes)
            dtype = np.dtype(_DTYPES[head[2]])
            # Python's integers: the product of four 32-bit sizes may pass 64 bits.
            expected = dtype.itemsize
            for size in shape:
                expected *= size
            # Read no more than a byte beyond what the header promises, whatever a .gz unfolds to.
            body = bytearray()
            while len(body) <= expected and (block := file.read(min(1 << 24, expected + 1 - len(body)))):
                body += block
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not a whole .gz file ({error}): get it again") from error
    if len(body) != expected:
        have = f"ends after {len(body):,} of" if len(body) < expected else "goes on after"
        raise UsageError(f"{path} {have} the {expected:,} bytes that its header promises: get it again")
    array = np.frombuffer(body, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _labels_beside(path: pathlib.Path) -> pathlib.Path | None:
    """The file of labels that goes with a file of images by the usual naming, if it is there."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    plain = name.removesuffix(".gz")
    return next((found for found in (path.with_name(plain), path.with_name(plain + ".gz")) if found != path and found.exists()), None)


def _pair(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    beside = _labels_beside(path) if "images" in path.name else None
    x, label = read(path), None if beside is None else read(beside)
    if label is not None and (label.ndim != 1 or len(label) != len(x)):
        raise UsageError(f"{beside} has the shape {label.shape} for the {len(x):,} examples of {path.name}: move it away, or give its own")
    return x, label


def load(request: Request) -> Dataset:
    """The data set of an IDX file with the labels beside it (and, for train-..., the test part t10k-... beside it), or
    of a built-in name."""
    if request.path is not None:
        train = request.path
        test: pathlib.Path | None = train.with_name(train.name.replace("train-", "t10k-"))
        test = test if test and test != train and test.exists() else None
    else:
        train, test = _built_in(request.source)
    x, label = _pair(train)
    own = None
    if test is not None:
        test_x, test_label = _pair(test)
        if test_x.shape[1:] != x.shape[1:] or test_x.dtype != x.dtype or (test_label is None) != (label is None):
            raise UsageError(f"{train.name} and {test.name} hold examples of different shapes, types or labels: move one away")
        own = (len(x), 0, len(test_x))
        x = np.concatenate([x, test_x])
        label = None if label is None or test_label is None else np.concatenate([label, test_label])
    content = hashlib.sha256(f"{x.dtype}{x.shape}".encode() + x.tobytes() + (b"" if label is None else label.tobytes())).hexdigest()
    return arrays.build(request, x, _named(request, label), own=own, content=content)


def _built_in(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    system = _SYSTEM.get(name)
    if system is not None and all((system / file).exists() for file in _FILES):
        files = [system / file for file in _FILES]
    else:
        files = [fetch(_URL[name] + file, f"{name}/{file}", sha256) for file, sha256 in zip(_FILES, _SHA256[name], strict=True)]
    return files[0], files[2]


def _named(request: Request, label: np.ndarray | None) -> Labels | None:
    if label is None:
        return None
    classes = _CLASSES.get(request.source) if request.path is None else None
    if classes is None:
        return from_array(label)
    if label.size and label.max() >= len(classes):
        raise UsageError(
            f"{request.source} has the label {label.max()}, beyond its {len(classes)} classes: remove the files to get them again"
        )
    return Labels(torch.from_numpy(label.astype(np.int64)), Classes(classes))
