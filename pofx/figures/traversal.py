"""One number of the code at a time, decoded from -3 to 3 standard deviations of the prior, the rest as of an example or of a draw."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from pofx import asked, examples, figures
from pofx.core import Decodes, Encodes, Model
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.figures.active_units import EXAMPLES, activity
from pofx.run import Run

needs, kinds = (Decodes,), ("images",)

#: Units shown, values of each, and how far they go in standard deviations of the prior.
UNITS, VALUES, REACH = 10, 11, 3.0
#: Codes of the prior whose units are moved to see what a unit does.
DRAWS = 16
#: Examples beside each other and frames of the film.
BESIDE, FRAMES = 8, 25


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """A row for each of the ten most active units, the most active first; `seed` chooses the example, whose own value is
    marked by a triangle."""
    codes, label, what = _codes(model, dataset, 1, seed)
    units, names, mean, scale = _units(model, dataset)
    values = torch.linspace(-REACH, REACH, VALUES)
    z = torch.cat([moved(codes, unit, mean[unit] + values * scale[unit]) for unit in units])
    of = None if label is None else label.expand(len(z), *label.shape[1:])
    image = grid(examples.decode(model, z, of), VALUES, gap=figures.GAP)
    title = f"each row: one unit from -{REACH:g} to {REACH:g} standard deviations of the prior, the rest as of {what}"
    encodes = Encodes in model.capabilities
    named = "its variance over x, in prior variances" if encodes else "mean squared change between -1 and +1"
    below = f"triangle: its own value; after a unit's name: {named}"
    columns = [f"{value:+.1f}" if abs(value) > 1e-6 else "0" for value in values.tolist()]
    figure = figures.picture(image, title, run, rows=names, columns=columns, below=below)
    axes = figure.axes[0]
    pitch = (image.shape[1] + figures.GAP) / VALUES, (image.shape[0] + figures.GAP) / len(units)
    for row, unit in enumerate(units):
        own = float((codes[0, unit] - mean[unit]) / scale[unit].clamp(min=1e-12))
        # Between the middles of the first and of the last image; an example further out is marked at the edge.
        across = (np.clip(own, -REACH, REACH) + REACH) / (2 * REACH) * (VALUES - 1) + 0.5
        mark = {"color": figures.colour(1), "markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.5}
        # Within the row's own images, just above their lower edge.
        axes.plot(across * pitch[0], (row + 1) * pitch[1] - figures.GAP - 7, "^", **mark)
    return figure


def film(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Iterator[Figure]:
    """The same units of several examples beside each other, all at the same value in each frame."""
    codes, label, what = _codes(model, dataset, BESIDE, seed)
    units, names, mean, scale = _units(model, dataset)
    of = None if label is None else label.repeat(len(units), *(1,) * (label.ndim - 1))
    for value in torch.linspace(-REACH, REACH, FRAMES):
        z = torch.cat([moved(codes, unit, mean[unit] + value * scale[unit]) for unit in units])
        # As wide in every frame.
        title = f"each row: its unit at {float(value):+5.2f} sd, the rest as of {what}"
        yield figures.picture(grid(examples.decode(model, z, of), len(codes), gap=figures.GAP), title, run, rows=names)


def moved(codes: Float[Tensor, "#n latent"], unit: int, values: Float[Tensor, " n"] | Float[Tensor, ""]) -> Float[Tensor, "n latent"]:
    """The codes with one unit at other values: one code at n values, or n codes at one."""
    z = codes.expand(max(len(codes), values.numel()), -1).clone()
    z[:, unit] = values
    return z


def _codes(model: Model, dataset: Dataset, n: int, seed: int) -> tuple[Tensor, Tensor | None, str]:
    """Codes of held-out examples, their labels and what they are; draws of the prior, under labels that are drawn as well, where
    the model does not encode."""
    if Encodes in model.capabilities:
        part, held = examples.held_out(dataset)
        batch = examples.some(held, n, seed=seed)
        return examples.encode(model, batch).flatten(1), batch.label, f"{part} examples" if n > 1 else f"a {part} example"
    label = asked.labels(model, None, n, seed)
    names = asked.names(model, label)
    what = "draws of the prior" if n > 1 else "a draw of the prior" + (f" ({names[0]})" if names else "")
    return examples.prior_codes(model, n, seed).flatten(1), label, what


def _units(model: Model, dataset: Dataset) -> tuple[list[int], tuple[str, ...], Tensor, Tensor]:
    """The most active units and their names, and mean and standard deviation of all under the prior."""
    mean, scale = examples.prior_scale(model)
    if Encodes in model.capabilities:
        activities, _ = activity(model, examples.some(examples.held_out(dataset)[1], EXAMPLES))
    else:
        activities = influence(model, mean, scale)
    units = [int(unit) for unit in np.argsort(-activities, kind="stable")[:UNITS]]
    digits = 2 if Encodes in model.capabilities else 4
    return units, tuple(f"z{unit}  {activities[unit]:.{digits}f}" for unit in units), mean, scale


def influence(model: Model, mean: Float[Tensor, " units"], scale: Float[Tensor, " units"]) -> Float[np.ndarray, " units"]:
    """The mean squared difference between what codes are decoded to with a unit at one standard deviation above the mean of the
    prior and at one below: all units of a prior vary alike, but the decoder need not listen to them alike."""
    codes, label = examples.prior_codes(model, DRAWS, 0).flatten(1), asked.labels(model, None, DRAWS, 0)
    label = None if label is None else torch.cat((label, label))
    found = []
    for unit in range(len(mean)):
        ends = torch.cat([moved(codes, unit, mean[unit] + sign * scale[unit]) for sign in (1, -1)])
        above, below = examples.decode(model, ends, label).chunk(2)
        found.append(float((above - below).square().mean()))
    return np.array(found)
