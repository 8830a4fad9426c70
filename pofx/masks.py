"""What of an example is given and what is to be filled in: halves, columns of a table, bright pixels of a picture."""

import pathlib

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pofx.core import DataSpec, UsageError

HALVES = ("top", "bottom", "left", "right")


def mask(spec: DataSpec, text: str | None, length: int | None = None) -> Bool[Tensor, "..."]:
    """True where an element is given, of the shape of one example.

    Arguments:
        text: half of an image: top, bottom, left or right; of a text, a sequence or a vector: left (its beginning) or right; names
            of columns of a table, a,b; or a picture file, whose bright pixels are given. None: top of images, else left.
        length: of one text.
    Raises `UsageError` for anything else, and for a mask that gives or leaves nothing.
    """
    images = spec.kind == "images"
    shape = (length or 0,) if spec.kind == "tokens" else spec.shape
    text = text or ("top" if images else "left")
    if text in HALVES:
        keep = _half(text, shape, images=images)
    elif images:
        keep = _picture(pathlib.Path(text), spec)
    else:
        keep = _columns(text, spec)
    if keep.all() or not keep.any():
        raise UsageError(f"the mask {text} gives {'everything' if keep.all() else 'nothing'} of an example: choose one that gives a part")
    return keep


def _half(text: str, shape: tuple[int, ...], *, images: bool) -> Tensor:
    if not images and text in ("top", "bottom"):
        raise UsageError(f"--mask {text} is half of an image, and these data are none: choose left (the beginning) or right")
    keep = torch.zeros(shape, dtype=torch.bool)
    # Of an odd number the given half is the smaller one.
    axis = 1 if images and text in ("top", "bottom") else 2 if images else 0
    half = shape[axis] // 2
    keep.narrow(axis, 0 if text in ("top", "left") else shape[axis] - half, half).fill_(True)
    return keep


def _picture(path: pathlib.Path, spec: DataSpec) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    _, height, width = spec.shape
    if not path.is_file():
        raise UsageError(f"there is no mask {str(path)!r}: give a picture whose bright pixels are kept, or {', '.join(HALVES)}")
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L").resize((width, height), Image.Resampling.NEAREST))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"the mask {path} cannot be read as a picture ({error}): save it again as .png") from error
    return torch.from_numpy(grey >= 128).expand(spec.shape).clone()


def _columns(text: str, spec: DataSpec) -> Tensor:
    names = list(dict.fromkeys(column.name for column in spec.columns))
    wanted = [name.strip() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in names]:
        known = f"columns {', '.join(names)}, " if names else ""
        raise UsageError(f"--mask {unknown[0]} is no part of these data: name {known}left or right")
    keep = torch.zeros(spec.shape, dtype=torch.bool)
    for column in spec.columns:
        if column.name in wanted:
            keep[column.start : column.stop] = True
    return keep
