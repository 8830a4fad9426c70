"""Codes of held-out examples in the plane, coloured by class, with the prior's 1, 2 and 3 sigma; several runs side by side.

Longer codes are shown by their two principal axes. Beside another run, numbers tell how far the codes are from N(0, I),
whether neighbours share a class, how much of the region of the codes is empty, and how many draws of the prior fall where
no code is.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from pofx import examples, figures, priors
from pofx.core import Classes, Decodes, Encodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.metrics import codes as measures
from pofx.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

needs = (Encodes,)

POINTS, CLASSES, DRAWS = 2000, 20, 4096
#: Fewer codes than these make no numbers.
LEAST = 50
#: Inches for each of several runs.
WIDE = 4.6
SIGMAS = (1, 2, 3)
#: A class is named where at least half of the nearest codes are its own, of a quarter as many as a class has, or of so many.
AROUND = 10
#: Width of a character of a name, and height of a name, in shares of the width and of the height of the cloud.
CHARACTER, LINE = 0.016, 0.035


class _Cloud(NamedTuple):
    """What is shown of one run: codes (n, latent), their places (n, 2), classes (-1 where unknown), their names, a title."""

    model: Model
    codes: np.ndarray
    plane: figures.Plane
    place: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    title: str


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0, compare: tuple[str, ...] = ()) -> Figure:
    """2,000 held-out examples; classes beyond the first 20 share grey with the examples without a label.

    Arguments:
        compare: further runs of the same data, which stand beside this one: above on one scale, below each on its own.
    Raises `UsageError` where a run cannot encode or is of other data.
    """
    first = _cloud(model, dataset, figures.named(run) if run is not None else "this model")
    if not compare:
        n, dimensions = first.codes.shape
        title = f"codes of {n:,} {examples.held_out(dataset)[0]} examples ({dimensions} dimension{'s' * (dimensions > 1)})"
        title += f"; prior {name}" if (name := priors.in_use(model)) else ""
        figure, axes = figures.canvas(title, 7.4, 6, run=run)
        _show(axes, first)
        _legend(figure, axes)
        return figure
    clouds = [first, *(_cloud(other, data, name) for other, data, name in figures.others(compare, dataset, run, needs))]
    return _beside(clouds, examples.held_out(dataset)[0], seed)


def _cloud(model: Model, dataset: Dataset, title: str) -> _Cloud:
    held = examples.held_out(dataset)[1]
    batch = examples.some(held, POINTS, window=model.window)
    codes = torch.cat([examples.encode(model, part).flatten(1) for part in examples.parts(batch)]).numpy()
    label, meaning = batch.label, dataset.spec.label
    names = meaning.names[:CLASSES] if isinstance(meaning, Classes) and label is not None else ()
    classes = label.cpu().numpy() if names and label is not None else np.full(len(codes), -1)
    plane = figures.Plane(codes, ("z0", "z1"))
    return _Cloud(model, codes, plane, plane(codes), np.where(classes < len(names), classes, -1), names, title)


def _show(axes: "Axes", cloud: _Cloud, *, named: bool = True) -> None:
    """The codes, the prior behind them and, where `named`, the names of the classes at their middles."""
    groups = [(cloud.classes == i, figures.colour(i), figures.MARKERS[i // 10], name) for i, name in enumerate(cloud.names)]
    groups.insert(0, (cloud.classes < 0, figures.REAL, "o", "no class" if cloud.names else ""))
    flat = cloud.codes.shape[1] == 1
    groups = [group for group in groups if group[0].any()]
    if flat:
        parts, bins = [cloud.codes[rows, 0] for rows, *_ in groups], np.histogram_bin_edges(cloud.codes[:, 0], 40)
        colours, names = [colour for _, colour, *_ in groups], [name for *_, name in groups]
        axes.hist(parts, bins=bins, stacked=True, color=colours, label=names)
    for rows, colour, marker, name in [] if flat else groups:
        size = min(30.0, max(7.0, 8000 / len(rows)))
        axes.scatter(*cloud.place[rows].T, s=size, color=colour, marker=marker, alpha=0.7, linewidths=0, label=name)
    if Decodes in cloud.model.capabilities:
        _prior(axes, cloud)
    if flat:
        axes.set(xlabel="z0", ylabel="examples")
        return
    if named:
        _name(axes, cloud, [(rows, colour, name) for rows, colour, _, name in groups if name in cloud.names])
    cloud.plane.label(axes)
    axes.set_aspect("equal", adjustable="datalim")


def _name(axes: "Axes", cloud: _Cloud, groups: list[tuple[np.ndarray, str, str]]) -> None:
    """Writes the name of every class into the cloud, or none where they do not all fit; the legend has them in any case."""
    names = [figures.shorten(name) for *_, name in groups]
    spots = placed(cloud.place, [rows for rows, *_ in groups], names)
    for (_, colour, _), name, spot in zip(groups, names, spots or (), strict=False):
        box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "linewidth": 1, "boxstyle": "round,pad=0.15"}
        axes.text(*spot, name, fontsize=7, ha="center", va="center", bbox=box, clip_on=True, parse_math=False)


def placed(place: np.ndarray, groups: list[np.ndarray], names: list[str]) -> list[np.ndarray] | None:
    """Where to write the name of each class: on a code of its own, with most of its own around it and none of the other names; of
    such the one that is nearest to its middle. None where a class has none.

    Arguments:
        place: (n, 2) codes in the plane. groups: of each class, which of them are its own.
    """
    from sklearn.neighbors import NearestNeighbors

    spread, taken = np.maximum(np.ptp(place, 0), 1e-12), list[tuple[np.ndarray, str]]()
    around = min(len(place), max(AROUND, len(place) // (4 * max(1, len(groups)))))
    near = NearestNeighbors(n_neighbors=around).fit(place / spread)
    for rows, name in zip(groups, names, strict=True):
        own = place[rows]
        among = rows[near.kneighbors(own / spread, return_distance=False)].mean(1)
        far = np.square((own - np.median(own, 0)) / spread).sum(1)
        free = among >= 0.5
        for at, other in taken:
            room = np.array([CHARACTER * (len(name) + len(other)) / 2, LINE])
            free &= (np.abs(own - at) / spread >= room).any(1)
        if not free.any():
            return None
        taken.append((own[free][far[free].argmin()], name))
    return [at for at, _ in taken]


def _prior(axes: "Axes", cloud: _Cloud) -> None:
    """1, 2 and 3 standard deviations of the prior: ellipses, or lines for codes of one number."""
    axis = torch.from_numpy(cloud.plane.axes.astype(np.float32))
    if cloud.codes.shape[1] == 1:
        mean, scale = (float(value[0]) for value in examples.prior_scale(cloud.model))
        for i, side in enumerate([mean + sign * k * scale for k in SIGMAS for sign in (-1, 1)]):
            axes.axvline(side, color="0.25", linewidth=1, linestyle="--", label="prior, 1, 2, 3 sigma" if i == 0 else None)
        return
    mean, covariance = (value.double().numpy() for value in examples.prior_moments(cloud.model, axis))
    centre = mean - cloud.plane.axes @ cloud.plane.centre
    for ellipse in ellipses(centre, covariance):
        axes.add_patch(ellipse)
    axes.plot([], [], color="0.25", linewidth=1, linestyle="--", label="prior, 1, 2, 3 sigma")
    # Patches do not count for the limits.
    widest = SIGMAS[-1] * np.sqrt(np.diagonal(covariance))
    axes.update_datalim([centre - widest, centre + widest])
    axes.autoscale_view()


def ellipses(mean: np.ndarray, covariance: np.ndarray) -> list[Ellipse]:
    """Where (z - mean)^T covariance^-1 (z - mean) = k^2, for k = 1, 2, 3: circles of radius k for N(0, I)."""
    variance, axes = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(np.maximum(variance, 0))
    angle = float(np.degrees(np.arctan2(axes[1, 0], axes[0, 0])))
    return [
        Ellipse((mean[0], mean[1]), k * width, k * height, angle=angle, fill=False, edgecolor="0.25", linewidth=1, linestyle="--")
        for k in SIGMAS
    ]


def _legend(figure: Figure, axes: "Axes") -> None:
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, frameon=False, markerscale=2, loc="outside right upper", fontsize=8)


def _beside(clouds: list[_Cloud], part: str, seed: int) -> Figure:
    """A column a run: above on one scale, below each on its own, and its numbers under it."""
    if any(cloud.codes.shape[1] == 1 for cloud in clouds):
        raise UsageError("codes of one number make no plane to compare: compare runs whose latent-dim is 2 or more")
    figure, axes = figures.canvas(
        f"codes of {len(clouds[0].codes):,} {part} examples: above on one scale, below each on its own",
        WIDE * len(clouds) + 1.2,
        10,
        nrows=2,
        ncols=len(clouds),
        squeeze=False,
    )
    for above, below, cloud in zip(*axes, clouds, strict=True):
        _show(above, cloud, named=False)
        _show(below, cloud)
        dimensions = cloud.codes.shape[1]
        prior = priors.in_use(cloud.model)
        title = f"{cloud.title} ({dimensions} dimensions{prior and f'; {prior}'})"
        above.set_title(figures.heading(title, None, WIDE * figures.DPI, 9), fontsize=9, loc="left", parse_math=False)
        below.annotate(_lines(cloud, seed), (0, 0), (0, -40), "axes fraction", "offset points", va="top", fontsize=9, linespacing=1.4)
    corners = np.concatenate([one.dataLim.get_points() for one in axes[0]])
    low, high = corners.min(0), corners.max(0)
    margin = 0.04 * (high - low).max()
    for one in axes[0]:
        one.set_aspect("equal", adjustable="box")
        one.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    _legend(figure, axes[0, 0])
    return figure


class Numbers(NamedTuple):
    """What is to be said about codes.

    active: how many units vary with x. kl: of the Gaussian with their moments from N(0, I), in nats. distance: sliced, from
    N(0, I), in its standard deviations. Both are of the active units: the code of an example is the mean of its posterior,
    and where that is the prior for every x, as it should be of a unit that is not needed, the means do not spread.
    empty: share of their convex hull. missed: share of draws of the prior with no code near. purity: share of the nearest
    neighbours of the same class. None where there is no prior, and no classes.
    """

    active: int
    kl: float
    distance: float
    empty: float
    missed: float | None
    purity: float | None


def measured(codes: np.ndarray, plane: figures.Plane, classes: np.ndarray, prior: np.ndarray | None = None) -> Numbers:
    """The numbers of codes (n, latent) shown in a plane, with classes (-1 where unknown) and draws of their prior."""
    place, known = plane(codes), classes >= 0
    units = measures.active_units(codes, None if prior is None else prior.var(0))
    told = codes[:, units] if units.any() else codes
    return Numbers(
        int(units.sum()),
        measures.standard_normal_kl(told),
        measures.sliced_distance(told),
        measures.empty_area(place),
        None if prior is None else float(1 - measures.near(place, plane(prior)).mean()),
        float(measures.neighbour_purity(codes[known], classes[known]).mean()) if known.sum() >= LEAST else None,
    )


def _lines(cloud: _Cloud, seed: int) -> str:
    """The numbers of a run in words, beside those of as many draws of N(0, I)."""
    n = len(cloud.codes)
    if n < LEAST:
        return f"{n} codes are too few for numbers"
    prior = examples.prior_codes(cloud.model, DRAWS, seed).flatten(1).numpy() if Decodes in cloud.model.capabilities else None
    mine = measured(cloud.codes, cloud.plane, cloud.classes, prior)
    normal = np.random.default_rng(0).standard_normal((n, max(2, mine.active)))
    distance, empty = measures.sliced_distance(normal), measures.empty_area(normal[:, :2])
    lines = [
        f"KL of the fitted Gaussian to N(0, I): {mine.kl:,.3g} nats",
        f"sliced distance to N(0, I): {mine.distance:.2f} ({distance:.2f} for draws of it)",
        f"empty within the hull: {mine.empty:.1%} ({empty:.1%} for N(0, I))",
    ]
    if mine.missed is not None:
        lines.append(f"draws of the prior with no code near: {mine.missed:.1%}")
    if mine.purity is not None:
        lines.append(f"of the {measures.NEIGHBOURS} nearest codes of the same class: {mine.purity:.0%}")
    units = f"{mine.active} of {cloud.codes.shape[1]} units vary with x"
    return "\n".join([*lines, f"(n = {n:,}; {measures.cells(n)} x {measures.cells(n)} cells; {units})"])
