"""Fits a prior to the codes of training data, which `sample` draws from: pofx fit-prior RUN --kind KIND."""

import dataclasses
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Fits a prior to the codes of training data; samples are drawn from it from then on."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    kind: str
    """What is fitted: gmm, flow or knn (see `pofx list priors`)."""
    components: int | None = None
    """Gaussians of a gmm. By default as many as make held-out codes likeliest."""
    neighbours: int | None = None
    """Neighbours of a code in a knn. By default as many as make held-out codes likeliest."""
    name: str | None = None
    """Keeps it in RUN/priors/NAME, in the place of one that is there. By default the kind."""
    seed: int = 0
    """Equal seeds give equal priors."""
    quiet: bool = False
    """No bar."""


def run(options: Options) -> None:
    """Fits, keeps, and prints how likely held-out codes are."""
    from pofx import fitting

    knobs = {name: value for name in ("components", "neighbours") if (value := getattr(options, name)) is not None}
    print(fitting.fit(options.run, options.kind, name=options.name, seed=options.seed, quiet=options.quiet, **knobs))
