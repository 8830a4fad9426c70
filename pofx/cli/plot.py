"""Draws a figure of a run: pofx plot RUN FIGURE."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Draws a figure of a run."""

    run: tyro.conf.Positional[str]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    figure: tyro.conf.Positional[str]
    """Name of the figure (see `pofx list figures`)."""
    seed: int = 0
    """Of what is drawn at random."""
    out: str | None = None
    """.png, .pdf or .svg. By default RUN/figures/FIGURE.png."""


def run(options: Options) -> None:
    """Draws and writes."""
    import pathlib

    from pofx import discovery, figures
    from pofx.run import Run

    discovery.load("figures", options.figure)  # an unknown name is told before anything is read
    found = Run.open(options.run)
    path = found.path / "figures" / f"{options.figure}.png" if options.out is None else pathlib.Path(options.out)
    figures.save(figures.draw(options.figure, found.model(), found.dataset(), run=found, seed=options.seed), path)
    print(path)
