"""Arrays: .npy and .npz files, and arrays in memory; the shape says whether they are images or vectors."""

import pathlib
import warnings
import zipfile
import zlib
from typing import Literal

import numpy as np
import torch

from pofx.core import UsageError
from pofx.data import images, series, vectors
from pofx.data.dataset import Dataset
from pofx.data.files import MAPPED, digest, digest_array
from pofx.data.labels import Labels, from_array
from pofx.data.options import Request

NAMES: dict[str, str] = {}
READS = ".npy and .npz arrays"


def matches(path: pathlib.Path) -> bool:
    """Whether the file's name says that it holds arrays."""
    return path.suffix.lower() in (".npy", ".npz") and path.is_file()


def load(request: Request) -> Dataset:
    """The data set of a .npy file, or of `x` and `label` of a .npz file. Raises `UsageError` for a file that cannot be
    read, holds Python objects or lacks `x`."""
    path = request.file
    try:
        mapped = path.suffix.lower() == ".npy" and path.stat().st_size > MAPPED
        array, label = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False), None
        notes: tuple[str, ...] = ()
        if isinstance(array, np.lib.npyio.NpzFile):
            with array as archive:
                if "x" not in archive:
                    raise UsageError(f"{path} holds {', '.join(archive.files) or 'nothing'}: name the array of examples x")
                array, label = archive["x"], archive.get("label")
                others = [name for name in archive.files if name not in ("x", "label")]
                notes = (f"{path}: {', '.join(others)} not read; labels are read from an array named label",) if others else ()
    except (UsageError, PermissionError):
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise UsageError(f"{path} holds Python objects, which are never read: save a plain array of numbers") from error
        # NumPy takes anything that it does not know for a pickle.
        reason = "it does not begin like one" if "pickle" in str(error) else error
        raise UsageError(f"{path} is not a whole {path.suffix} file ({reason}): save it again") from error
    labels = None if label is None else from_array(label, source=str(path))
    return build(request, array, labels, content=digest(path), notes=notes)


def build(
    request: Request,
    array: np.ndarray,
    labels: Labels | None,
    *,
    own: tuple[int, int, int] | None = None,
    content: str | None = None,
    notes: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> Dataset:
    """The data set of an array: (n, features) vectors; (n, height, width) or four axes with channels first or last,
    images; `--data.kind`, or the kind of the run's codec, overrides.

    Arguments:
        own: how many rows, in order, are the source's own training, validation and test parts.
        content: hash of the source; by default of the array.
        also: options that the source can use besides those of the kind.
    Raises `UsageError` for objects, other shapes, values that are not finite and images outside [0, 1].
    """
    source, options = request.source, request.options
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{source} is an array of {array.dtype}: give one of numbers")
    if array.ndim in (1, 2) and _one_series(request, array):
        return _series(request, array, labels, content, notes)
    if array.ndim < 2 or 0 in array.shape:
        raise UsageError(f"{source} has the shape {array.shape}: give (n, features), or images of (n, height, width) or with channels")
    if labels is not None and len(labels.value) != len(array):
        raise UsageError(f"{source} has {len(array):,} examples and {len(labels.value):,} labels: give one each")
    low, high = _bounds(array, source)
    given = options.kind or (getattr(request.codec, "kind", request.codec.name) if request.codec else None)
    holds = "vectors" if array.ndim == 2 else "images"
    kind = given or holds
    if request.codec is not None and (kind not in ("images", "vectors", "sequences") or (kind == "images" and holds != kind)):
        raise UsageError(f"{source} holds {holds}, and the run models {request.codec.name}: give it data of that kind")
    content = content or digest_array(array)
    if kind == "images":
        options.only(source, "a source of images", *images.OPTIONS, *also)
        layout, dtype = _layout(array, source), array.dtype.name
        array = _pixels(array, source, low, high)
        with warnings.catch_warnings():
            # A memory map is read only, and nothing writes to the storage of a split.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            x = torch.from_numpy(array)
        x = x.unsqueeze(1) if layout == "hw" else x.permute(0, 3, 1, 2) if layout == "hwc" else x
        x = x if x.nbytes > MAPPED else x.contiguous()
        return images.dataset(request, x, labels, own, dtype=dtype, layout=layout, content=content, notes=notes)
    if kind in ("vectors", "sequences"):
        options.only(source, f"a source of {kind}", *vectors.OPTIONS, *also)
        if kind == "sequences" and array.ndim not in (2, 3):
            raise UsageError(f"{source} has the shape {array.shape}: sequences are (n, time, features) or (n, time)")
        return vectors.dataset(request, array, labels, own, kind=kind, content=content, notes=notes)
    raise UsageError(f"{source} is an array, which cannot be read as {kind}: its kinds are images, vectors and sequences")


def _one_series(request: Request, array: np.ndarray) -> bool:
    """Whether an array is one series, (time,) or (time, features): a window is asked for, or it has no second axis."""
    options, codec = request.options, request.codec
    if codec is not None:
        return isinstance(codec, series.SeriesCodec)
    return options.kind == "sequences" and (options.window is not None or array.ndim == 1) and 0 not in array.shape


def _series(request: Request, array: np.ndarray, labels: Labels | None, content: str | None, notes: tuple[str, ...]) -> Dataset:
    """The data set of an array that is one series. Raises `UsageError` for labels."""
    request.options.only(request.source, "a series", "kind", "window", "validation", "seed")
    if labels is not None:
        raise UsageError(f"{request.source} is one series, which has no labels: leave them out, or give (n, time, features)")
    _bounds(array, request.source)
    names = tuple(f"x{i}" for i in range(array.size // len(array)))
    whole = (array.dtype.kind in "iub",) * len(names)
    steps = array.reshape(len(array), -1).astype(np.float64)
    return series.dataset(request, steps, names, integers=whole, content=content or digest_array(array), notes=[*notes])


def _bounds(array: np.ndarray, source: str) -> tuple[float, float]:
    """Least and greatest value, in blocks of rows. Raises `UsageError` for values that are not finite."""
    if array.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.inf, -np.inf
    for start in range(0, len(array), 4096):
        block = array[start : start + 4096]
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        # The least and greatest of a block with NaN is NaN, which `min` above may lose.
        if not (np.isfinite(float(block.min())) and np.isfinite(float(block.max()))):
            raise UsageError(f"{source} has values that are not finite (NaN or infinite): remove or fill them first")
    return low, high


def _layout(array: np.ndarray, source: str) -> Literal["hw", "hwc", "chw"]:
    if array.ndim == 3:
        return "hw"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "chw"
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return "hwc"
    raise UsageError(f"{source} has the shape {array.shape}: images are (n, height, width), or have 1 or 3 channels first or last")


def _pixels(array: np.ndarray, source: str, low: float, high: float) -> np.ndarray:
    """Images as uint8 or float32, without a copy where they are that already."""
    kind = array.dtype.kind
    if kind in "iu" and (low < 0 or high > 255):
        raise UsageError(f"{source} has integers from {low:g} to {high:g}: images have 0 to 255, or floats in [0, 1]")
    if kind == "f" and (low < 0 or high > 1):
        raise UsageError(f"{source} has floats from {low:.4g} to {high:.4g}: scale images to [0, 1], or give --data.kind vectors")
    wanted = np.dtype(np.uint8 if kind in "iu" else np.float32)
    if array.dtype != wanted and array.nbytes > MAPPED:
        raise UsageError(f"{source} is a large array of {array.dtype}: save it as {wanted}, which needs no conversion")
    return array.astype(wanted, copy=False)
