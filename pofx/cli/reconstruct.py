"""Encodes data and decodes them again: pofx reconstruct RUN."""

import dataclasses
from typing import Annotated

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Encodes data and decodes them again."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source, all of which is reconstructed; by default the held-out part of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    n: int | None = None
    """At most so many examples; by default 64 for .png, 16 texts to standard output, else all."""
    out: str | None = None
    """.png (inputs above, results below), .npz, .csv, .txt, folder/. By default a file in RUN/samples; texts go to standard
    output, each result below its input."""


def run(options: Options) -> None:
    """Reconstructs and writes."""
    import pathlib

    import torch

    from pofx import asked, discovery, examples
    from pofx.core import Decodes, Encodes, UsageError
    from pofx.data.images import write_grid
    from pofx.data.text import line
    from pofx.figures.reconstructions import blocks

    if options.n is not None and options.n < 1:
        raise UsageError(f"--n must be at least 1, not {options.n}")
    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Encodes, Decodes, what="reconstruct")
    split = asked.data(found, options.source, options.data.on_error)[1]
    images, shown = model.spec.kind == "images", model.spec.kind == "tokens" and options.out is None
    default = found.path / "samples" / f"{found.step}-reconstructions{'.png' if images else '.npz'}"
    path = default if options.out is None else pathlib.Path(options.out)
    grid = images and path.suffix == ".png"
    batch = examples.first(split, options.n or (64 if grid else 16 if shown else len(split)), model.window)
    result = torch.cat([examples.reconstruct(model, part) for part in examples.parts(batch)])
    if shown:
        lines = [(line(str(text)) for text in found.codec.show(x)) for x in (batch.x, result)]
        print("\n\n".join(f"{before}\n{after}" for before, after in zip(*lines, strict=True)))
        return
    if grid:
        # As many columns as the square picture of all has.
        columns = min(len(result), max(1, round((2 * len(result)) ** 0.5)))
        write_grid(blocks((batch.x, result), columns), path, columns)
    else:
        found.codec.write(result, path, batch.label)
    print(path)
