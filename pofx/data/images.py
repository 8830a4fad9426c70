"""Images as a model sees them: the codec, the grid picture, the way to another size."""

import dataclasses
import math
import pathlib
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, pad

from pofx.core import Classes, UsageError
from pofx.data.dataset import Codec, Dataset
from pofx.data.files import MAPPED, whole, whole_folder
from pofx.data.labels import Kept, Labels, keep, kept, restore
from pofx.data.options import Request
from pofx.data.splits import assemble, divide, read_labels

#: Options that a source of images can use.
OPTIONS = ("kind", "size", "fit", "flip", "bits", "labelled", "validation", "seed")

WIDEST = 16
"""Images in a row of a grid whose rows are of one class, at most."""


@dataclasses.dataclass(frozen=True)
class ImageCodec(Codec):
    """Images of a source.

    height, width, channels: of one image. bits: as in `DataSpec`.
    dtype, layout: of the source's array; hw, hwc or chw.
    label: kind and names of the labels, or None.
    """

    name: ClassVar[str] = "images"
    height: int
    width: int
    channels: int
    bits: int | None = None
    dtype: str = "uint8"
    layout: Literal["hw", "hwc", "chw"] = "chw"
    label: Kept = None

    def show(self, x: Float[Tensor, "n channels height width"]) -> np.ndarray:
        """Images in the source's dtype and layout."""
        array = x.detach().cpu().to(torch.float32).clamp(0, 1).numpy()
        if self.layout != "chw":
            array = array.transpose(0, 2, 3, 1)
        if self.layout == "hw":
            array = array[..., 0]
        if self.dtype == "bool":
            return array >= 0.5
        dtype = np.dtype(self.dtype)
        return (array * 255).round().astype(dtype) if dtype.kind in "iu" else array.astype(dtype)

    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes a .png grid, an .npz of `x` and `label`, or a folder of PNG files (a path without an ending), in
        sub-folders by class or beside a labels.csv. Raises `UsageError` for another ending and for no images."""
        path = pathlib.Path(path)
        if not len(x):
            raise UsageError(f"there are no images to write to {path}")
        if path.suffix == ".npz":
            write_npz(path, self.show(x), label, self.label)
        elif path.suffix == ".png":
            write_grid(x, path, None if label is None else _columns(label))
        elif path.suffix == "" or path.is_dir():
            self._write_folder(x, path, label)
        else:
            raise UsageError(f"images are written to .png (a grid), .npz, or a folder/ of PNG files, not to {path.name}")

    def _write_folder(self, x: Tensor, path: pathlib.Path, label: Tensor | None) -> None:
        meaning = kept(self.label)
        digits = max(5, len(str(len(x) - 1)))
        files = [f"{i:0{digits}d}.png" for i in range(len(x))]
        with whole_folder(path) as folder:
            if label is not None and isinstance(meaning, Classes):
                # A class that is no file name becomes one; missing labels stand beside the sub-folders.
                names = [str(name).replace("/", "_").lstrip(".") or "_" for name in restore(label, meaning)]
                files = [file if int(of) < 0 else f"{name}/{file}" for file, name, of in zip(files, names, label, strict=True)]
            elif label is not None and meaning is not None:
                rows = [",".join(["file", *meaning.names])]
                rows += [",".join([file, *map(str, row)]) for file, row in zip(files, label.tolist(), strict=True)]
                (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
            for file, image in zip(files, to_uint8(x), strict=True):
                (folder / file).parent.mkdir(exist_ok=True)
                _save(image, folder / file)


def write_npz(path: pathlib.Path, x: np.ndarray, label: Tensor | None, meaning: Kept) -> None:
    """Writes arrays `x` and, where there is one, `label` in the source's own names."""
    of = kept(meaning)
    labels = {} if label is None else {"label": restore(label, of) if of else label.cpu().numpy()}
    with whole(path) as temporary:
        np.savez_compressed(temporary, x=x, **labels)  # type: ignore[arg-type]


def write_grid(x: Float[Tensor, "n channels height width"], path: pathlib.Path, columns: int | None = None) -> None:
    """Writes images in [0, 1] as one .png picture with so many columns (see `grid`)."""
    with whole(path) as temporary:
        _save(grid(x, columns), temporary)


def _columns(label: Tensor) -> int | None:
    """Images in a row of a grid in which every row is of one class, where the labels stand class by class, as many of each; else None."""
    if label.ndim > 1:
        return None
    found, counts = label.unique_consecutive(return_counts=True)
    each = int(counts[0])
    if len(found) < 2 or each < 2 or bool((counts != each).any()):
        return None
    return max(columns for columns in range(1, min(each, WIDEST) + 1) if each % columns == 0)


def _save(image: np.ndarray, path: pathlib.Path) -> None:
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, format="PNG")


def to_uint8(x: Float[Tensor, "n channels height width"]) -> np.ndarray:
    """Images in [0, 1] as uint8 (n, height, width, channels)."""
    return x.detach().cpu().to(torch.float32).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def grid(x: Float[Tensor, "n channels height width"], columns: int | None = None, *, least: int = 64, gap: int = 1) -> np.ndarray:
    """Images in [0, 1] side by side with grey lines of `gap` pixels between them, as uint8 (height, width, channels).

    Small images are enlarged by whole factors until one is `least` pixels high, unless the picture passes 4,096.

    Arguments:
        columns: images in a row; by default as many as rows, or one more.
    """
    images = to_uint8(x)
    n, height, width, channels = images.shape
    columns = min(n, columns or math.isqrt(n - 1) + 1)
    rows = -(-n // columns)
    factor = max(1, min(-(-least // max(height, width)), 4096 // (rows * height), 4096 // (columns * width)))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = height * factor, width * factor
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 128, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        picture[top : top + height, left : left + width] = image
    return picture


def apart(picture: np.ndarray, size: tuple[int, int], n: int, *, gap: int = 1) -> Float[Tensor, "n channels height width"]:
    """The images of a picture that `grid` made of n images of this (height, width), again in [0, 1]."""
    columns, (height, width) = math.isqrt(n - 1) + 1, size
    factor = ((picture.shape[1] + gap) // columns - gap) // width
    picture = picture.reshape(*picture.shape[:2], -1)
    places = [(i // columns * (height * factor + gap), i % columns * (width * factor + gap)) for i in range(n)]
    images = [picture[top : top + height * factor : factor, left : left + width * factor : factor] for top, left in places]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(torch.float32) / 255


def resize(x: Shaped[Tensor, "n channels height width"], size: tuple[int, int], fit: str) -> Shaped[Tensor, "n channels h w"]:
    """Images (uint8, or float32 in [0, 1]) brought to `size` (height, width) by bicubic scaling with antialiasing.

    crop: the smaller scale factor that covers `size`, then the centre; pad: the larger that fits, then black margins.
    """
    height, width = x.shape[-2:]
    if (height, width) == size:
        return x
    ratios = size[0] / height, size[1] / width
    ratio = max(ratios) if fit == "crop" else min(ratios)
    bound = max if fit == "crop" else min
    scaled = tuple(bound(target, max(1, round(side * ratio))) for side, target in zip((height, width), size, strict=True))
    if scaled != (height, width):
        x = interpolate(x, size=scaled, mode="bicubic", antialias=True)
        x = x if x.dtype == torch.uint8 else x.clamp(0, 1)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    if fit == "crop":
        return x[..., top : top + size[0], left : left + size[1]]
    return pad(x, (-left, size[1] - scaled[1] + left, -top, size[0] - scaled[0] + top))


def changed(request: Request, size: tuple[int, int]) -> str:
    """The sentence that says that images were brought to another size."""
    how = "cropped to their centre" if request.options.fit == "crop" else "padded with black"
    return f"images of other sizes are scaled to {size[0]}x{size[1]} and {how} where the shape differs"


def dataset(
    request: Request,
    x: UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"],
    labels: Labels | None,
    own: tuple[int, int, int] | None,
    *,
    dtype: str,
    layout: Literal["hw", "hwc", "chw"],
    content: str,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of images uint8, or float32 in [0, 1]. Raises `UsageError` where they and the options, or they and
    the run's codec, do not fit."""
    options, codec = request.options, request.codec
    if codec is not None and not isinstance(codec, ImageCodec):
        raise UsageError(f"{request.source} holds images, and the run models {codec.name}: give it data of that kind")
    if codec is not None and codec.channels != x.shape[1]:
        raise UsageError(f"{request.source} has images of {x.shape[1]} channels, and the run models {codec.channels}: convert them first")
    bits = options.bits or (codec.bits if codec else 8 if x.dtype == torch.uint8 else None)
    size = options.height_width if options.size else (codec.height, codec.width) if codec else tuple(x.shape[-2:])
    if codec and (bits, size) != (codec.bits, (codec.height, codec.width)):
        raise UsageError(
            f"the run models images of {codec.height}x{codec.width} and bits {codec.bits}: leave --data.size and --data.bits out"
        )
    if bits == 1 and x.shape[1] != 1:
        raise UsageError(f"--data.bits 1 binarises grey images, and those of {request.source} have colour: leave it out")
    if size != tuple(x.shape[-2:]) or (bits == 8 and x.dtype != torch.uint8):
        if x.nbytes > MAPPED:
            raise UsageError(f"{request.source} is too large to be converted in memory: bring it to {size[0]}x{size[1]} and to uint8 first")
        if size != tuple(x.shape[-2:]):
            notes += (changed(request, size),)
        x = torch.cat([resize(part, size, options.fit) for part in x.split(1024)])
        if bits == 8 and x.dtype != torch.uint8:
            x = x.mul(255).round().to(torch.uint8)
    labels = read_labels(request, labels, codec)
    if codec is None:
        codec = ImageCodec(size[0], size[1], x.shape[1], bits, dtype, layout, keep(labels.label) if labels else None)
    rows = divide(len(x), own, options.validation, request.seed)
    return assemble(request, x, labels, rows, codec, kind="images", content=content, bits=bits, notes=notes)
