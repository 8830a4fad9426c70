"""Figures: every module here is one, found by its file; it has `needs` (capabilities) and `draw`."""

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from pofx import discovery
from pofx.core import Model, UsageError
from pofx.data.dataset import Dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from pofx.run import Run

DPI = 150
#: Colours of real and of generated data, which people with any colour vision tell apart.
REAL, GENERATED = "#9aa5b1", "#d1495b"
ENDINGS = (".png", ".pdf", ".svg")


def draw(name: str, model: Model, dataset: Dataset, *, run: "Run | None" = None, seed: int = 0) -> Figure:
    """The figure of a name. Raises `UsageError` for an unknown one, and for a model that lacks a capability it needs."""
    module = discovery.load("figures", name)
    discovery.require(model, *module.needs, what=f"the figure {name}")
    return module.draw(model, dataset, run=run, seed=seed)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure by its ending. Raises `UsageError` for one that is not known."""
    from pofx.data.files import whole

    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"figures are written to {', '.join(ENDINGS)}, not to {path.name}")
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=path.suffix.lower()[1:])


def picture(image: np.ndarray, title: str, *, rows: tuple[str, ...] = ()) -> Figure:
    """An image (height, width, channels) of 8 bits shown pixel by pixel under a title.

    Arguments:
        rows: names of equally high rows, written at their left, of one or more lines.
    """
    height, width = image.shape[:2]
    top, left = 42, (24 + 13 * max(len(line) for row in rows for line in row.splitlines())) if rows else 12
    total = max(left + width + 12, 13 * len(title)), top + height + 12
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((left / total[0], 12 / total[1], width / total[0], height / total[1]))
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    for i, name in enumerate(rows):
        axes.text(-6 / width, 1 - (i + 0.5) / len(rows), name, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    figure.text(left / total[0], 1 - 14 / total[1], title, ha="left", va="top", fontsize=9)
    return figure


def canvas(title: str, width: float = 6.0, height: float = 6.0, **grid: Any) -> "tuple[Figure, Any]":
    """A figure with axes without a box, and a title at the left; `grid` as for `Figure.subplots`."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(**grid)
    for one in np.asarray(axes).flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="0.92", linewidth=0.8)
        one.set_axisbelow(True)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    return figure, axes


class Plane:
    """Two principal axes of rows of numbers; rows of two numbers keep their own axes.

    Arguments:
        x: (n, features); fewer than two features get a second one of zeros.
        names: of the features, where they are shown as they are.
    """

    def __init__(self, x: np.ndarray, names: tuple[str, str] = ("x0", "x1")) -> None:
        from sklearn.decomposition import PCA

        self._pca, self.names = None, names
        if x.shape[1] > 2 and len(x) > 2:
            self._pca = PCA(2, random_state=0).fit(x)
            shares = np.nan_to_num(self._pca.explained_variance_ratio_)
            self.names = tuple(f"principal axis {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares))  # type: ignore[assignment]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, 2)."""
        if self._pca is not None:
            return self._pca.transform(x)
        return np.pad(x[:, :2], ((0, 0), (0, max(0, 2 - x.shape[1]))))

    def label(self, axes: "Axes") -> None:
        """Names the axes."""
        axes.set(xlabel=self.names[0], ylabel=self.names[1])


def rows(dataset: Dataset, x: "Tensor") -> np.ndarray:
    """Examples as rows of numbers: in the source's units where those are numbers, else as the model sees them."""
    shown = dataset.codec.show(x)
    plain = isinstance(shown, np.ndarray) and shown.dtype.kind in "fiub" and not dataset.spec.columns
    return np.asarray(shown if plain else x.cpu().numpy(), dtype=np.float64).reshape(len(x), -1)
