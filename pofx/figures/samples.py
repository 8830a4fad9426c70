"""New examples: a grid of images (a row for each label), a page of text, points over held-out ones, sequences."""

import textwrap

import numpy as np
import torch
from matplotlib.figure import Figure

from pofx import asked, examples, figures, priors
from pofx.core import Model, Samples, UsageError
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.run import Run
from pofx.specimens import printable

needs = (Samples,)

IMAGES, TEXTS, POINTS, SEQUENCES = 64, 4, 2000, 8
#: Images of one label, and labels, in the grid of a conditional model.
OF_CLASS, CLASSES = 8, 16
WIDTH, LINES = 96, 12


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """New examples, a function of `seed`."""
    match model.spec.kind:
        case "images":
            return _images(model, run, seed)
        case "tokens":
            return _texts(model, dataset, run, seed)
        case "vectors":
            return _points(model, dataset, run, seed)
        case "sequences":
            return _sequences(model, dataset, run, seed)


def _images(model: Model, run: Run | None, seed: int) -> Figure:
    condition = getattr(model, "condition", None)
    if condition is not None:
        names, label = asked.shown(condition, OF_CLASS, CLASSES, seed)
        # Each row from the same noise, so that it is the label that makes the difference.
        x = torch.cat([examples.draw(model, OF_CLASS, seed=seed, label=part) for part in label.split(OF_CLASS)])
        return figures.picture(
            grid(x, OF_CLASS), f"samples by label{_codes(model)}", run, rows=tuple(figures.shorten(name) for name in names)
        )
    return figures.picture(grid(examples.draw(model, IMAGES, seed=seed)), f"samples{_codes(model)}", run)


def _codes(model: Model) -> str:
    """Which prior the codes of samples are drawn from, where it is a fitted one."""
    return f", codes from the prior {name}" if (name := priors.in_use(model)) else ""


def _texts(model: Model, dataset: Dataset, run: Run | None, seed: int) -> Figure:
    return page([str(text) for text in dataset.codec.show(examples.draw(model, TEXTS, seed=seed))], f"samples{_codes(model)}", run)


def page(texts: list[str], title: str, run: Run | None = None) -> Figure:
    """Texts below one another, with a rule between them, under a title that names `run`."""
    blocks = []
    for text in texts:
        lines = [piece for line in text.splitlines() for piece in (textwrap.wrap(line, WIDTH, drop_whitespace=False) or [""])]
        blocks.append(lines[:LINES] + (["…"] if len(lines) > LINES else []))
    height = sum(map(len, blocks)) + 2 * len(blocks)
    above = figures.heading(title, run, 0.94 * 8 * figures.DPI, 11)
    top = 0.31 + 0.19 * len(above.splitlines())
    figure = Figure(figsize=(8.0, top + 0.1 + 0.165 * height), dpi=figures.DPI, facecolor="white")
    figure.text(0.03, 1 - 0.12 / figure.get_figheight(), above, fontsize=11, va="top", parse_math=False)
    for lines in blocks:
        # Nothing is taken for markup.
        shown = printable("\n".join(lines))
        figure.text(
            0.03, 1 - top / figure.get_figheight(), shown, family="monospace", fontsize=7.5, va="top", linespacing=1.25, parse_math=False
        )
        top += 0.165 * (len(lines) + 2)
        figure.add_artist(_rule(1 - (top - 0.2) / figure.get_figheight()))
    return figure


def _rule(y: float) -> "object":
    from matplotlib.lines import Line2D

    return Line2D([0.03, 0.97], [y, y], color="0.85", linewidth=0.8)


def _points(model: Model, dataset: Dataset, run: Run | None, seed: int) -> Figure:
    part, held = examples.held_out(dataset)
    real = figures.rows(dataset, examples.first(held, POINTS).x)
    plane = figures.Plane(real)
    # Side by side: of two clouds in one place the upper one hides the lower.
    figure, axes = figures.canvas(f"{part} examples and as many samples{_codes(model)}", 8, 4.4, ncols=2, sharex=True, sharey=True, run=run)
    sets = ((real, part, figures.REAL), (figures.rows(dataset, examples.draw(model, len(real), seed=seed)), "samples", figures.GENERATED))
    for one, (x, name, colour) in zip(axes, sets, strict=True):
        place = plane(x)
        one.scatter(place[:, 0], place[:, 1], s=6, c=colour, alpha=0.5, linewidths=0, rasterized=True)
        plane.label(one)
        one.set_title(name, fontsize=9, loc="left")
        if real.shape[1] == 2:  # principal axes of more numbers need not be as long as each other
            one.set_aspect("equal", adjustable="box")
    axes[1].set_ylabel("")
    return figure


def _sequences(model: Model, dataset: Dataset, run: Run | None, seed: int) -> Figure:
    part, held = examples.held_out(dataset)
    figure, axes = figures.canvas(
        f"samples and held-out sequences, first feature{_codes(model)}", 8, 5, nrows=2, sharex=True, sharey=True, run=run
    )
    sets = ((examples.first(held, SEQUENCES).x, part), (examples.draw(model, SEQUENCES, seed=seed), "samples"))
    for one, (x, name), colour in zip(axes, sets, (figures.REAL, figures.GENERATED), strict=True):
        shown = dataset.codec.show(x)
        if not isinstance(shown, np.ndarray):
            raise UsageError(f"sequences of {dataset.source} cannot be drawn as lines")
        one.plot(shown.reshape(*x.shape)[..., 0].T, color=colour, linewidth=1)
        one.set_ylabel(name)
    axes[-1].set_xlabel("time")
    return figure
