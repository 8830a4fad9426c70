"""What the decoder makes of a plane through the codes, at even quantiles of the prior or over a range.

Codes of two numbers: the whole plane. Longer ones: the plane of the two principal axes of the codes of held-out
examples (of draws of the prior, where the model does not encode), through their mean.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.special import ndtri

from pofx import examples, figures
from pofx.core import Decodes, Encodes, Model, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

needs, kinds = (Decodes,), ("images",)

SIDE, DRAWS, EDGE = 16, 4096, 0.02
PRIOR = "the prior"
#: Examples whose codes give the plane of long codes.
EXAMPLES = 1000
#: Half of the side of the plane that is compared first: three standard deviations of N(0, I).
NEAR = 3.0
#: Inches for each of several runs.
WIDE = 5.4
#: Images along a side and frames of the film, which goes from the first of these ranges to so many of the prior's sigma.
FILM_SIDE, FRAMES, FIRST, LAST = 10, 20, 0.25, 4.0


class Codes(NamedTuple):
    """What lies in the plane: codes (n, latent), whose they are, the plane, and what it is called.

    normal: mean and standard deviation along the axes of the plane, where the codes are draws of a Gaussian prior.
    """

    z: np.ndarray
    of: str
    plane: figures.Plane
    name: str
    normal: tuple[np.ndarray, np.ndarray] | None = None


def draw(
    model: Model,
    dataset: Dataset,
    *,
    run: Run | None = None,
    seed: int = 0,
    range: float | None = None,
    compare: tuple[str, ...] = (),
) -> Figure:
    """A grid of decoded images.

    Arguments:
        range: R shows the plane from -R to R in both directions, in units of the code, which are standard deviations of a
            prior N(0, I). None: even quantiles of the prior, which lie where the model's own codes do.
        compare: further runs, which stand beside this one on one scale: from -R to R, or, where no range is given, above
            from -3 to 3 and below as far as the codes of any of them go.
    Raises `UsageError` for a range that is not above 0, and for runs of other data.
    """
    _check(range)
    codes = codes_of(model, dataset, seed)
    if not compare:
        how = f"at even quantiles of {codes.of}" if range is None else f"from -{range:g} to {range:g}"
        figure, axes = figures.canvas(f"decoded codes: {codes.name}, {how}", 8.2, 8.4, run=run)
        _show(axes, model, codes, SIDE, range)
        return figure
    title = figures.named(run) if run is not None else "this model"
    shown = [(title, model, codes)]
    for other, data, name in figures.others(compare, dataset, run, needs):
        shown.append((name, other, codes_of(other, data, seed)))
    return _beside(shown, range)


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0, range: float | None = None) -> Iterator[Figure]:
    """The plane from its middle outwards, to four standard deviations of the prior.

    Arguments:
        range: where it ends, as for `draw`.
    """
    _check(range)
    codes = codes_of(model, dataset, seed)
    if range is None:
        mean, covariance = examples.prior_moments(model, torch.from_numpy(codes.plane.axes).float())
        from_centre = mean.numpy() - codes.plane.axes @ codes.plane.centre
        range = float((np.abs(from_centre) + LAST * np.sqrt(np.diagonal(covariance))).max())
    names = "z" if codes.z.shape[1] == 1 else " and ".join(name.partition(" (")[0] for name in codes.plane.names)
    for reach in np.geomspace(min(FIRST, range / 10), range, FRAMES):
        z = plane(codes, FILM_SIDE, float(reach)).z
        title = f"decoded: {names} within ±{reach:.2f}"
        yield figures.picture(grid(examples.decode(model, z), FILM_SIDE, least=48, gap=figures.GAP), title, run)


def _check(range: float | None) -> None:
    if range is not None and not 0 < range < float("inf"):
        raise UsageError(f"--range must be above 0, not {range:g}: it is half of the side of the plane that is decoded")


def codes_of(model: Model, dataset: Dataset, seed: int) -> Codes:
    """Draws of the prior; codes of held-out examples, where codes are long and the model encodes."""
    if len(examples.prior_codes(model, 1, seed)[0].flatten()) > 2 and Encodes in model.capabilities:
        part, held = examples.held_out(dataset)
        z = examples.encode(model, examples.some(held, EXAMPLES)).flatten(1).numpy()
        of = f"{part} codes"
    else:
        z, of = examples.prior_codes(model, DRAWS, seed).flatten(1).numpy(), PRIOR
    name = {1: "z0 row by row", 2: "the plane of z0 and z1"}.get(z.shape[1], f"the principal plane of {of}")
    if getattr(model.config, "conditional", False):
        name += " (of no class)"
    through = figures.Plane(z, ("z0", "z1"))
    exact = examples.gaussian(model, torch.from_numpy(through.axes).float()) if of == PRIOR else None
    if exact is None:
        return Codes(z, of, through, name)
    mean, covariance = (value.double().numpy() for value in exact)
    if z.shape[1] > 2:
        # Through the prior's own mean instead of that of the draws.
        through.centre = examples.prior_scale(model)[0].double().numpy()
    return Codes(z, of, through, name, (mean - through.axes @ through.centre, np.sqrt(np.diagonal(covariance))))


class Sheet(NamedTuple):
    """A grid of codes. z: (rows x columns, latent), row by row from the top. right, up: coordinates of the columns from
    the left and of the rows from the top in the plane; the same for codes of one number, which go along the rows."""

    z: Float[torch.Tensor, "places latent"]
    right: Float[np.ndarray, " columns"]
    up: Float[np.ndarray, " rows"]


def plane(codes: Codes, side: int, reach: float | None = None) -> Sheet:
    """side x side codes at even quantiles of `codes` along both axes, or evenly from -reach to reach."""

    def along(axis: int, count: int) -> np.ndarray:
        if reach is not None:
            return np.linspace(-reach, reach, count)
        shares = np.linspace(EDGE, 1 - EDGE, count)
        if codes.normal is not None:
            # Those of draws would differ from their mirror images by chance.
            mean, scale = codes.normal
            return mean[axis] + scale[axis] * ndtri(shares)
        return np.quantile(codes.plane(codes.z)[:, axis], shares)

    if codes.z.shape[1] == 1:
        line = along(0, side * side)
        return Sheet(torch.from_numpy(line).float()[:, None], line[:side], line[::side])
    right, up = along(0, side), along(1, side)[::-1]
    places = np.stack((np.tile(right, side), np.repeat(up, side)), 1)
    return Sheet(torch.from_numpy(codes.plane.back(places)).float(), right, up)


def _show(axes: "Axes", model: Model, codes: Codes, side: int, reach: float | None) -> None:
    """The decoded plane, with the coordinates of some columns and rows."""
    sheet = plane(codes, side, reach)
    image = grid(examples.decode(model, sheet.z), side, gap=figures.GAP)
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255, extent=(0, side, 0, side))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    if codes.z.shape[1] == 1:
        axes.set(xticks=[], yticks=side - np.arange(side) - 0.5, yticklabels=[f"{value:.2f}" for value in sheet.up], ylabel="z0")
        return
    some = np.linspace(0, side - 1, min(side, 6)).round().astype(int)
    axes.set_xticks(some + 0.5, [f"{value:.1f}" for value in sheet.right[some]])
    axes.set_yticks(side - some - 0.5, [f"{value:.1f}" for value in sheet.up[some]])
    codes.plane.label(axes)


def _beside(shown: list[tuple[str, Model, Codes]], reach: float | None) -> Figure:
    """A column a run; a row for each range."""
    if any(codes.z.shape[1] == 1 for _, _, codes in shown):
        raise UsageError("codes of one number make no plane to compare: compare runs whose latent-dim is 2 or more")
    reaches = [reach]
    if reach is None:
        # As far as nearly all of the codes of the run with the widest ones go.
        widest = max(float(np.quantile(np.abs(codes.plane(codes.z)), 1 - EDGE)) for _, _, codes in shown)
        reaches = [NEAR, float(np.ceil(widest))] if widest > NEAR else [NEAR]
    figure, axes = figures.canvas(
        "decoded planes on one scale",
        WIDE * len(shown),
        5.5 * len(reaches) + 0.3,
        nrows=len(reaches),
        ncols=len(shown),
        squeeze=False,
    )
    for row, far in zip(axes, reaches, strict=True):
        for one, (name, model, codes) in zip(row, shown, strict=True):
            _show(one, model, codes, SIDE, far)
            title = figures.heading(f"{name}, from -{far:g} to {far:g}", None, WIDE * figures.DPI, 9)
            one.set_title(title, fontsize=9, loc="left", parse_math=False)
    return figure
