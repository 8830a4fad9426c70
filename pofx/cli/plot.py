"""Draws a figure of a run: pofx plot RUN FIGURE."""

import dataclasses
from typing import Annotated

import tyro

#: Fields that are passed to the figure's own `draw` or `film`, where it has them.
KNOBS = ("compare", "range", "mask", "prompt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Draws a figure of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    figure: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FIGURE")]
    """Name of the figure (see `pofx list figures`)."""
    seed: int = 0
    """Of what is drawn at random."""
    out: str | None = None
    """.png, .pdf or .svg, or .gif of a figure that moves. By default RUN/figures/FIGURE.png."""
    compare: tuple[str, ...] | None = None
    """Further runs to stand beside this one on one scale (latent, manifold)."""
    range: float | None = None
    """Decode the plane from -R to R, in units of the code: the prior's standard deviations where it is N(0, I) (manifold)."""
    mask: str | None = None
    """What is given of an image: top, bottom, left, right, or a picture whose bright pixels are (completion)."""
    prompt: str | None = None
    """The text after which to show what may come (next-token)."""


def run(options: Options) -> None:
    """Draws and writes."""
    import pathlib

    from pofx import asked, discovery, figures
    from pofx.core import UsageError
    from pofx.run import Run, same_data, trained_on

    name, known = discovery.spelled("figures", options.figure), discovery.names("figures")
    knobs = {knob: value for knob in KNOBS if (value := getattr(options, knob)) is not None}
    films = options.out is not None and pathlib.Path(options.out).suffix.lower() == figures.FILM
    # What the command alone tells is said before anything is read.
    if name in known:
        figures.check(name, "film" if films else "draw", knobs)
    if discovery.spelled("figures", options.run) in known and (pathlib.Path(options.figure) / "run.json").exists():
        raise UsageError(f"the run comes first: pofx plot {options.figure} {options.run}")
    found = asked.opened(options.run)
    if name not in known:
        model = found.model()
        raise UsageError(discovery.unknown("figure", name, known, [other for other in known if figures.fits(other, model)]))
    same_data(*map(trained_on, [found, *map(Run.open, options.compare or ())]))
    path = found.path / "figures" / f"{name}.png" if options.out is None else pathlib.Path(options.out)
    what = (name, found.model(), found.dataset())
    if films:
        figures.save_film(name, figures.film(*what, run=found, seed=options.seed, **knobs), path)
    else:
        figures.save(figures.draw(*what, run=found, seed=options.seed, **knobs), path)
    print(path)
