"""From image files to one array of pixels in the cache: decoded once, by a pool of threads."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pofx.core import UsageError
from pofx.data.files import need_space, progress, whole_folder
from pofx.data.images import ImageCodec, changed, resize
from pofx.data.options import Request

#: Pixels of the largest image that is opened.
_LARGEST = 100_000_000
_BLOCK = 256
#: Formats of cameras, which store upright pictures lying down; asking a PNG would decode all of it.
_TURNED = ("JPEG", "MPO", "WEBP")


@dataclasses.dataclass(frozen=True)
class _Image:
    """One file: its path within the folder, its size, and whether its header says that it is grey."""

    name: str
    height: int
    width: int
    grey: bool


def _unreadable(root: pathlib.Path, name: str, error: Exception) -> UsageError:
    reason = str(error).replace(repr(str(root / name)), "it").replace(str(root / name), "it").strip().splitlines() or [type(error).__name__]
    return UsageError(f"{root / name} cannot be read ({reason[0]}): repair or remove it, or give --data.on-error skip")


def _headers(request: Request, names: list[str]) -> tuple[list[_Image], list[str]]:
    """What the headers say, and the names of files without a usable one. Raises `UsageError` for the first of those
    unless they are to be skipped."""
    from PIL import Image

    images, bad = [], []
    with warnings.catch_warnings():
        # Pillow warns of images that may be decompression bombs; the limit here is below its own.
        warnings.simplefilter("ignore")
        for name in names:
            try:
                with Image.open(request.file / name) as image:
                    width, height = image.size
                    if width * height > _LARGEST:
                        raise ValueError(f"{width}x{height} pixels are more than {_LARGEST:,}")
                    if image.format in _TURNED and image.getexif().get(0x0112, 1) >= 5:
                        width, height = height, width
                    images.append(_Image(name, height, width, image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")))
            # A damaged file makes decoders raise nearly anything.
            except Exception as error:
                if request.options.on_error == "stop":
                    raise _unreadable(request.file, name, error) from error
                bad.append(name)
    return images, bad


def _pixels(path: pathlib.Path, channels: int) -> np.ndarray:
    """An image as uint8 (channels, height, width), upright; transparent parts stand on white."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened) if opened.format in _TURNED else opened
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            values = np.asarray(image, dtype=np.float64)
            if image.mode == "F":
                raise ValueError("floating-point pixels have no known range")
            grey = (values / 257).round().clip(0, 255).astype(np.uint8)
            return np.repeat(grey[None], channels, axis=0)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _has_colour(pixels: np.ndarray, name: str) -> bool:
    """Whether red, green and blue differ by more than what lossy compression does to grey."""
    slack = 8 if name.lower().endswith((".jpg", ".jpeg", ".webp")) else 0
    return bool((pixels.max(0) - pixels.min(0) > slack).any())


def _size(request: Request, images: list[_Image]) -> tuple[int, int]:
    if request.options.size is not None:
        return request.options.height_width
    if isinstance(request.codec, ImageCodec):
        return request.codec.height, request.codec.width
    sizes = Counter((image.height, image.width) for image in images)
    common = sizes.most_common(3)
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in common)
        more = f" and {len(sizes) - 3:,} more" if len(sizes) > 3 else ""
        (height, width), _ = common[0]
        raise UsageError(f"{request.source} has images of several sizes, HxW: {shown}{more}: give --data.size, such as {height}x{width}")
    return common[0][0]


def _decoded(request: Request, images: list[_Image], size: tuple[int, int], channels: int) -> Iterator[tuple[int, Any]]:
    """Number and pixels, or number and error, of each image, in order, by a pool of threads."""

    def pixels(image: _Image) -> np.ndarray | Exception:
        try:
            array = torch.from_numpy(np.ascontiguousarray(_pixels(request.file / image.name, channels)))
            return resize(array[None], size, request.options.fit)[0].numpy()
        # A damaged file makes decoders raise nearly anything; the caller names it.
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), _BLOCK):
            yield from enumerate(pool.map(pixels, images[start : start + _BLOCK]), start)


def decode(request: Request, names: list[str], folder: pathlib.Path) -> None:
    """Writes x.npy (n, channels, height, width) and images.json to a folder of the cache, whole or not at all."""
    images, bad = _headers(request, names)
    if not images:
        raise UsageError(f"no image of {request.source} can be read: see whether its files are images")
    size = _size(request, images)
    channels = 1 if all(image.grey for image in images) else 3
    need = len(images) * channels * size[0] * size[1]
    # Colour that turns out to be grey, and files that turn out to be damaged, cost a second copy.
    need_space(folder.parent, 2 * need)
    with whole_folder(folder) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = np.lib.format.open_memmap(temporary / "raw.npy", "w+", dtype=np.uint8, shape=(len(images), channels, *size))
        good = np.ones(len(images), dtype=bool)
        coloured = ""
        with progress(f"decoding {request.source}", len(images), shown=len(images) > 2000) as advance:
            for i, pixels in _decoded(request, images, size, channels):
                if isinstance(pixels, Exception):
                    if request.options.on_error == "stop":
                        raise _unreadable(request.file, images[i].name, pixels) from pixels
                    good[i] = False
                    bad.append(images[i].name)
                else:
                    raw[i] = pixels
                    coloured = coloured or (images[i].name if channels == 3 and _has_colour(pixels, images[i].name) else "")
                advance(1)
        if not good.any():
            raise UsageError(f"no image of {request.source} can be read: see whether its files are images")
        if coloured and isinstance(request.codec, ImageCodec) and request.codec.channels == 1:
            raise UsageError(
                f"{request.file / coloured} is coloured, and the run models grey images: convert it, and others like it, first"
            )
        keep = channels if coloured else 1
        if good.all() and keep == channels:
            raw.flush()
            os.replace(temporary / "raw.npy", temporary / "x.npy")
        else:
            rows = np.flatnonzero(good)
            x = np.lib.format.open_memmap(temporary / "x.npy", "w+", dtype=np.uint8, shape=(len(rows), keep, *size))
            for start in range(0, len(rows), _BLOCK):
                x[start : start + _BLOCK] = raw[rows[start : start + _BLOCK], :keep]
            x.flush()
            (temporary / "raw.npy").unlink()
        read = [image for image, fine in zip(images, good, strict=True) if fine]
        other = [image.name for image in read if (image.height, image.width) != size]
        notes = [f"{changed(request, size)} ({len(other):,} of {len(read):,}, such as {other[0]})"] if other else []
        notes += [f"{len(bad):,} of {len(names):,} images could not be read and are left out, such as {bad[0]}"] if bad else []
        found = {"names": [image.name for image in read], "notes": notes}
        (temporary / "images.json").write_text(json.dumps(found), encoding="utf-8")
