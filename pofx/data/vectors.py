"""Vectors and sequences of numbers, standardised by feature; the codec that undoes it."""

import dataclasses
import math
import pathlib
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx.core import UsageError
from pofx.data.dataset import Codec, Dataset
from pofx.data.files import MAPPED, whole
from pofx.data.images import write_npz
from pofx.data.labels import Kept, Labels, keep, kept, restore
from pofx.data.options import Request
from pofx.data.splits import assemble, divide, read_labels

#: Options that a source of vectors or sequences can use.
OPTIONS = ("kind", "labelled", "validation", "seed")


@dataclasses.dataclass(frozen=True)
class VectorCodec(Codec):
    """Vectors or sequences of a source: (value - mean) / std on the last axis.

    mean, std: of each feature on the training examples. dtype, shape: of one example in the source's array.
    label: kind and names of the labels, or None.
    """

    name: ClassVar[str] = "vectors"
    kind: Literal["vectors", "sequences"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    shape: tuple[int, ...]
    label: Kept = None

    def log_jacobian(self) -> float:
        """-sum of log std over all values of an example."""
        steps = math.prod(self.shape) // len(self.std)
        return -steps * sum(math.log(std) for std in self.std)

    def show(self, x: Float[Tensor, "n ..."]) -> np.ndarray:
        """Examples in the source's units, dtype and shape."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        array = (x.detach().cpu().to(torch.float64) * std + mean).numpy().reshape(len(x), *self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return array >= 0.5
        if dtype.kind in "iu":
            array = array.round().clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
        return array.astype(dtype)

    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes .npz (`x`, `label`), .npy, .csv (one example a row) or a .png scatter of the first two features.
        Raises `UsageError` for another ending."""
        path = pathlib.Path(path)
        array = self.show(x)
        if path.suffix == ".npz":
            write_npz(path, array, label, self.label)
        elif path.suffix == ".npy":
            with whole(path) as temporary:
                np.save(temporary, array)
        elif path.suffix == ".csv":
            self._write_csv(array, path, label)
        elif path.suffix == ".png" and self.kind == "vectors":
            _scatter(array.reshape(len(array), -1), path, label)
        else:
            endings = ".npz, .npy, .csv and .png" if self.kind == "vectors" else ".npz, .npy and .csv"
            raise UsageError(f"{self.kind} are written to {endings}, not to {path.name}")

    def _write_csv(self, array: np.ndarray, path: pathlib.Path, label: Tensor | None) -> None:
        array = array.reshape(len(array), -1)
        columns: list[tuple[str, Any]] = [(f"x{i}", array[:, i]) for i in range(array.shape[1])]
        meaning = kept(self.label)
        if label is not None and meaning is not None:
            values = restore(label, meaning)
            names = meaning.names if values.ndim == 2 else ("label",)
            columns += list(zip(names, values.reshape(len(values), -1).T, strict=True))
        write_csv(path, columns)


def write_csv(path: pathlib.Path, columns: list[tuple[str, Any]]) -> None:
    """Writes named columns of equal length; floats in the fewest digits that give them back."""
    import csv

    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([name for name, _ in columns])
        writer.writerows(zip(*(values for _, values in columns), strict=True))


def _scatter(array: np.ndarray, path: pathlib.Path, label: Tensor | None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    second = array[:, 1] if array.shape[1] > 1 else np.zeros(len(array))
    colour = None if label is None or label.ndim > 1 else label.cpu().numpy()
    axes.scatter(array[:, 0], second, s=4, c=colour, cmap="tab10" if colour is not None else None)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="x0", ylabel="x1" if array.shape[1] > 1 else "")
    with whole(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def standardisation(
    x: Float[Tensor, "n ..."], rows: Tensor
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"], tuple[str, ...]]:
    """Mean and standard deviation of each feature on `rows`, in float64, with a note on features that never change,
    whose deviation counts as 1."""
    flat = x[rows].reshape(-1, x.shape[-1]).to(torch.float64)
    mean, std = flat.mean(0), flat.std(0, correction=0)
    # A constant column's deviation is rounding, not exactly 0.
    constant = std <= 1e-12 * mean.abs().clamp(min=1e-12)
    count = int(constant.sum())
    note = (f"{count} of {len(std)} features never change in the training examples and are only centred",) if count else ()
    return mean, torch.where(constant, 1.0, std), note


def dataset(
    request: Request,
    array: np.ndarray,
    labels: Labels | None,
    own: tuple[int, int, int] | None,
    *,
    kind: Literal["vectors", "sequences"],
    content: str,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of finite numbers (n, features), (n, ...) flattened to vectors, or (n, time, features). Raises
    `UsageError` where they do not fit the run's codec or into memory."""
    codec = request.codec
    if codec is not None and (not isinstance(codec, VectorCodec) or codec.kind != kind):
        raise UsageError(
            f"{request.source} holds {kind}, and the run models {getattr(codec, 'kind', codec.name)}: give it data of that kind"
        )
    shape = array.shape[1:]
    if codec is not None and codec.shape != shape:
        raise UsageError(f"{request.source} has {kind} of shape {shape}, and the run models {codec.shape}: give it data of that shape")
    if array.nbytes > MAPPED:
        raise UsageError(
            f"{request.source} has {array.nbytes / 1e9:.1f} GB, and {kind} are standardised in memory: give at most 1 GB of rows"
        )
    steps = shape[0] if kind == "sequences" else 1
    wide = torch.from_numpy(np.array(array, dtype=np.float64)).reshape((len(array), steps, -1) if kind == "sequences" else (len(array), -1))
    rows = divide(len(array), own, request.options.validation, request.seed)
    labels = read_labels(request, labels, codec)
    if codec is None:
        mean, std, constant = standardisation(wide, rows.train)
        notes += constant
        label = keep(labels.label) if labels else None
        codec = VectorCodec(kind, tuple(mean.tolist()), tuple(std.tolist()), array.dtype.name, tuple(shape), label)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (codec.mean, codec.std))
    x = wide.sub_(mean).div_(std).to(torch.float32)
    return assemble(request, x, labels, rows, codec, kind=kind, content=content, notes=notes)
