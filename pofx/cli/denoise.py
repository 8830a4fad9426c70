"""Takes the noise out of data: pofx denoise RUN --data my_folder --out cleaned/."""

import dataclasses
from typing import Annotated

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Takes the noise out of data."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """Noisy data, all of which are cleaned; by default the held-out part of the run's own, with the noise of the training."""
    data: Reading = dataclasses.field(default_factory=Reading)
    n: int | None = None
    """At most so many examples; by default 64 for .png, else all."""
    seed: int = 0
    """Of the noise that is added."""
    out: str | None = None
    """.png (what was given above, results below), .npz, .csv, folder/ (numbered in the order of the data). By default a file in RUN/samples."""


def run(options: Options) -> None:
    """Denoises and writes."""
    import pathlib

    from pofx import asked, discovery, examples
    from pofx.core import Denoises, UsageError
    from pofx.data.images import write_grid
    from pofx.figures.reconstructions import blocks

    if options.n is not None and options.n < 1:
        raise UsageError(f"--n must be at least 1, not {options.n}")
    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Denoises, what="denoise")
    split = asked.data(found, options.source, options.data.on_error)[1]
    images = model.spec.kind == "images"
    default = found.path / "samples" / f"{found.step}-denoised{'.png' if images else '.npz'}"
    path = default if options.out is None else pathlib.Path(options.out)
    grid = images and path.suffix == ".png"
    batch = examples.first(split, options.n or (64 if grid else len(split)), model.window)
    noisy = batch.x if options.source is not None else examples.corrupt(model, batch.x, seed=options.seed)
    restored = examples.denoise(model, noisy)
    if grid:
        given = (noisy,) if options.source is not None else (batch.x, noisy)
        # As many columns as the square picture of all has.
        columns = min(len(noisy), max(1, round(((len(given) + 1) * len(noisy)) ** 0.5)))
        write_grid(blocks((*given, restored), columns), path, columns)
    else:
        found.codec.write(restored, path, batch.label)
    print(path)
