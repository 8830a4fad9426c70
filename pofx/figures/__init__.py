"""Figures: every module here is one, found by its file; it has `needs` (capabilities) and `draw`.

Those that move have `film` besides, which gives the frames of a sweep, or, where `one_way` is set, of what comes about.
Keyword-only arguments beyond `run` and `seed` are the figure's knobs, which `pofx plot` passes on. A figure of some kinds of data
alone names them in `kinds`; what it needs besides, in words, is `wants`, and `fits(model)` says whether a model has it, where that is
the model's matter.
"""

import contextlib
import functools
import inspect
import logging
import pathlib
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from pofx import discovery
from pofx.core import Model, UsageError
from pofx.data.dataset import Dataset
from pofx.progress import warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from pofx.core import Capability
    from pofx.run import Run

DPI = 150
#: Colours of real and of generated data, which people with any colour vision tell apart.
REAL, GENERATED = "#9aa5b1", "#d1495b"
#: Colours of classes and of curves, which people with any colour vision tell apart on white: those of Okabe and Ito, with a
#: darker yellow, and two more. References: Color Universal Design (Okabe and Ito, 2008), https://jfly.uni-koeln.de/color/
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E8D71E", "#000000", "#882255", "#5D3A9B")
#: Shapes of points, the next one for each ten classes more.
MARKERS = "os^DvP*X<>"
#: Pixels between images that are to be told apart at a glance.
GAP = 4
#: Width of a character, in sizes of its font, and pixels that the title of a narrow picture has.
CHARACTER, LEAST = 0.6, 480
KINDS = ("images", "tokens", "vectors", "sequences")
ENDINGS = (".png", ".pdf", ".svg")
FILM = ".gif"
#: Fonts that have what matplotlib's own lacks, Chinese, Japanese and Korean above all; those that are there are used.
FURTHER = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai", "Segoe UI Symbol",
)  # fmt: skip
#: Seconds that a frame is shown, those at the two ends of a film, and that in which a film of one way ends.
FRAME, END, RESULT = 0.08, 0.6, 2.5


def draw(name: str, model: Model, dataset: Dataset, *, run: "Run | None" = None, seed: int = 0, **knobs: Any) -> Figure:
    """The figure of a name.

    Arguments:
        knobs: further keyword-only arguments of the figure's `draw`.
    Raises `UsageError` for an unknown name or knob, and for a model that lacks what it needs or is of other data.
    """
    with _fonts():
        figure: Figure = _asked(name, "draw", model, knobs)(model, dataset, run=run, seed=seed, **knobs)
    return figure


def film(name: str, model: Model, dataset: Dataset, *, run: "Run | None" = None, seed: int = 0, **knobs: Any) -> list[Figure]:
    """The frames of a figure that moves, as `draw`. Raises `UsageError` for one that does not, too."""
    with _fonts():
        return list(_asked(name, "film", model, knobs)(model, dataset, run=run, seed=seed, **knobs))


@functools.cache
def _further() -> list[str]:
    """Those of the further fonts that this machine has."""
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return [name for name in FURTHER if name in there]


def _fonts() -> contextlib.AbstractContextManager[None]:
    """Texts in it are set in the usual font, and characters that it lacks in those."""
    import matplotlib

    return matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *_further()]})


@contextlib.contextmanager
def rendering() -> Iterator[None]:
    """While figures are turned into pixels: characters that no font has are told in one sentence."""
    # Which weight of a font it takes where the usual one is missing is of no interest.
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        log.setLevel(level)
    lacking = False
    for warning in caught:
        if str(warning.message).startswith("Glyph "):
            lacking = True
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking:
        warn("some characters are boxes in the figure, since no font here has them: install one that does, such as Noto Sans CJK")


def _asked(name: str, what: str, model: Model, knobs: dict[str, Any]) -> Callable[..., Any]:
    """`draw` or `film` of a figure, which must have the knobs and fit the model."""
    check(name, what, knobs)
    module = discovery.load("figures", name)
    discovery.require(model, *module.needs, what=f"the figure {name}")
    if model.spec.kind not in (kinds := getattr(module, "kinds", KINDS)):
        raise UsageError(f"the figure {name} shows {' and '.join(kinds)}, and these data are {model.spec.kind}: plot samples instead")
    if not fits(name, model):
        raise UsageError(f"the figure {name} needs {module.wants}, and this {type(model).__name__} is none")
    call: Callable[..., Any] = getattr(module, what)
    return call


def check(name: str, what: str, knobs: Iterable[str]) -> None:
    """Raises `UsageError` for an unknown figure, for a `what` of "film" where it does not move, and for a knob that it does not have."""
    module = discovery.load("figures", name)
    if not hasattr(module, what):
        moving = [other for other in discovery.names("figures") if hasattr(discovery.load("figures", other), what)]
        raise UsageError(f"the figure {name} does not move, so that it cannot be a {FILM}; those that do: {', '.join(moving)}")
    has, which = flags(name, what), f"the film of {name}" if what == "film" else f"the figure {name}"
    for flag in map(_flag, knobs):
        if flag not in has:
            raise UsageError(f"{which} has no {flag}; it {f'has: {listed}' if (listed := ', '.join(has)) else 'takes no options'}")


def flags(name: str, what: str = "draw") -> list[str]:
    """The knobs of a figure, or of its film, as they are typed."""
    taken = inspect.signature(getattr(discovery.load("figures", name), what)).parameters
    return [_flag(knob) for knob in taken if knob not in ("model", "dataset", "run", "seed")]


def _flag(knob: str) -> str:
    return f"--{knob.replace('_', '-')}"


def fits(name: str, model: Model) -> bool:
    """Whether the figure of a name can be drawn of a model, as far as its capabilities, its data's kind and its settings tell."""
    module = discovery.load("figures", name)
    able = set(module.needs) <= model.capabilities and model.spec.kind in getattr(module, "kinds", KINDS)
    return able and (not hasattr(module, "fits") or bool(module.fits(model)))


def needed(name: str) -> str:
    """What a figure needs and which options it takes, as a sentence."""
    module = discovery.load("figures", name)
    able = " and ".join(map(discovery.does, module.needs))
    needs = [f"a model that {able}"] if able else []
    needs += [f"data that are {' or '.join(module.kinds)}"] if hasattr(module, "kinds") else []
    needs += [module.wants] if hasattr(module, "wants") else []
    takes = flags(name) + ([f"--out x{FILM}"] if hasattr(module, "film") else [])
    return f"Needs {', '.join(needs)}; takes {', '.join(takes) or 'no options'}."


def others(
    compare: Sequence[str], dataset: Dataset, run: "Run | None", needed: "tuple[type[Capability], ...]"
) -> "Iterator[tuple[Model, Dataset, str]]":
    """Model, data and name of each run to compare with `run`, which is one of `dataset`.

    Raises `UsageError` for a run of other data, and for one whose model lacks a capability.
    """
    from pofx.run import Run, same_data, trained_on

    first = ("this model" if run is None else str(run.path), dataset.source, dataset.fingerprint)
    runs = [Run.open(reference) for reference in compare]
    same_data(first, *map(trained_on, runs))
    for reference, other in zip(compare, runs, strict=True):
        model = other.model()
        discovery.require(model, *needed, what=f"a comparison with {reference}")
        yield model, other.dataset(), named(other)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure by its ending. Raises `UsageError` for one that is not known."""
    from pofx.data.files import whole

    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"figures are written to {', '.join(ENDINGS)}, films to {FILM}, not to {path.name}")
    with whole(path) as temporary, rendering():
        figure.savefig(temporary, dpi=DPI, format=path.suffix.lower()[1:])


def save_film(name: str, frames: Sequence[Figure], path: pathlib.Path) -> None:
    """Writes the frames of a figure's film as a .gif that goes on for ever: a sweep there and back, what comes about to its end alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    from pofx.data.files import whole

    pictures = []
    for frame in frames:
        canvas = FigureCanvasAgg(frame)
        with rendering():
            canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(256, dither=Image.Dither.NONE))
    back = not getattr(discovery.load("figures", name), "one_way", False)
    last = END if back else RESULT
    pictures += pictures[-2:0:-1] if back else []
    seconds = [END if i == 0 else last if i == len(frames) - 1 else FRAME for i in range(len(pictures))]
    with whole(path) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=[int(1000 * s) for s in seconds], loop=0
        )


def shorten(name: str, width: int = 14) -> str:
    """A name that fits beside a row or on a point."""
    return textwrap.shorten(name, width, placeholder="…") or name[:width]


def colour(i: int) -> str:
    """Of the i-th of several things; from the eleventh on again those of the first ones."""
    return PALETTE[i % len(PALETTE)]


def heading(title: str, run: "Run | None", room: float, size: float) -> str:
    """A title and, below it, the run that a figure is of, in lines that fit into so many pixels at this size of the font."""
    lines = title.splitlines() + ([] if run is None else [named(run)])
    return "\n".join(piece for line in lines for piece in _wrapped(line, room, size))


def named(run: "Run") -> str:
    """The model and the run folder with its checkpoint, as every figure names them."""
    return f"{run.label}, {run.path}" + ("" if run.step is None else f"@{run.step}")


def _wrapped(line: str, room: float, size: float) -> list[str]:
    return textwrap.wrap(line, max(1, int(room / _pixels(1, size))), break_on_hyphens=False)


def _pixels(characters: int, size: float) -> float:
    """Width of so many characters at a size of the font in points."""
    return characters * CHARACTER * size * DPI / 72


def picture(
    image: np.ndarray, title: str, run: "Run | None" = None, *, rows: Sequence[str] = (), columns: Sequence[str] = (), below: str = ""
) -> Figure:
    """An image (height, width, channels) of 8 bits shown pixel by pixel under a title.

    Arguments:
        run: that the picture is of, which the title names.
        rows, columns: names of equally high rows, written at their left (of one or more lines), and of equally wide columns,
            below them.
        below: a line of text under everything.
    """
    height, width = image.shape[:2]
    longest = max((len(line) for row in rows for line in row.splitlines()), default=0)
    left, room = (18 + round(_pixels(longest, 8))) if rows else 12, max(width, LEAST)
    above, under = heading(title, run, room, 9), _wrapped(below, room, 8)
    top, bottom = 19 + 23 * len(above.splitlines()), 12 + 22 * bool(columns) + 6 * bool(below) + 20 * len(under)
    total = left + room + 12, top + height + bottom
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    for i, name in enumerate(rows):
        axes.text(-6 / width, 1 - (i + 0.5) / len(rows), name, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    for i, name in enumerate(columns):
        axes.text((i + 0.5) / len(columns), -4 / height, name, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    figure.text(left / total[0], 8 / total[1], "\n".join(under), ha="left", va="bottom", fontsize=8)
    figure.text(left / total[0], 1 - 14 / total[1], above, ha="left", va="top", fontsize=9, parse_math=False)
    return figure


def canvas(title: str, width: float = 6.0, height: float = 6.0, *, run: "Run | None" = None, **grid: Any) -> "tuple[Figure, Any]":
    """A figure with axes without a box, and a title at the left that names `run`; `grid` as for `Figure.subplots`."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(**grid)
    for one in np.asarray(axes).flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="0.92", linewidth=0.8)
        one.set_axisbelow(True)
    figure.suptitle(heading(title, run, 0.96 * width * DPI, 11), x=0.02, ha="left", fontsize=11, parse_math=False)
    return figure, axes


class Plane:
    """Two principal axes of rows of numbers; rows of two numbers keep their own axes.

    Arguments:
        x: (n, features); fewer than two features get a second one of zeros.
        names: of the features, where they are shown as they are.

    Attributes:
        centre: (features,) what lies at the origin of the plane. axes: (2, features) orthonormal, or zeros for the second
            one of a single feature.
    """

    def __init__(self, x: np.ndarray, names: tuple[str, str] = ("x0", "x1")) -> None:
        from sklearn.decomposition import PCA

        features = x.shape[1]
        self.names, self.centre, self.axes = names, np.zeros(features), np.eye(2, features)
        if features > 2 and len(x) > 2:
            pca = PCA(2, random_state=0).fit(x)
            shares = np.nan_to_num(pca.explained_variance_ratio_)
            self.centre, self.axes = pca.mean_, pca.components_
            self.names = tuple(f"principal axis {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares))  # type: ignore[assignment]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, 2)."""
        return (x - self.centre) @ self.axes.T

    def back(self, place: np.ndarray) -> np.ndarray:
        """(n, features) of places (n, 2) in the plane."""
        return self.centre + place @ self.axes

    def label(self, axes: "Axes") -> None:
        """Names the axes."""
        axes.set(xlabel=self.names[0], ylabel=self.names[1])


def rows(dataset: Dataset, x: "Tensor") -> np.ndarray:
    """Examples as rows of numbers: in the source's units where those are numbers, else as the model sees them."""
    shown = dataset.codec.show(x)
    plain = isinstance(shown, np.ndarray) and shown.dtype.kind in "fiub" and not dataset.spec.columns
    return np.asarray(shown if plain else x.cpu().numpy(), dtype=np.float64).reshape(len(x), -1)
