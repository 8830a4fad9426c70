"""Fills in what is missing: pofx complete RUN --mask top."""

import dataclasses
from typing import Annotated

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Fills in what is missing."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """Data to complete; by default the held-out part of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    mask: str | None = None
    """What is given, the rest is filled in: top, bottom, left or right (half of an image, of the others left, the beginning, or right), a
    picture FILE whose bright pixels are given, or columns of a table, a,b. By default top, or left."""
    n: int | None = None
    """At most so many examples; by default 8 for .png, 4 texts to standard output, else all."""
    each: int = 6
    """Completions of each example."""
    seed: int = 0
    """Equal seeds give equal completions."""
    label: str | None = None
    """What the completions are of (conditional models): see `pofx sample`. By default no label is given."""
    temperature: float | None = None
    """Below 1 draws likelier completions."""
    out: str | None = None
    """.png (a row for each example: itself, what is given, completions), .npz, .csv, folder/. By default a file in RUN/samples; texts
    go to standard output."""


def run(options: Options) -> None:
    """Completes and writes."""
    import pathlib

    from pofx import asked, discovery, examples, masks
    from pofx.core import Completes, UsageError
    from pofx.data.images import write_grid
    from pofx.data.text import RULE
    from pofx.figures.completion import strips

    for flag in ("n", "each"):
        if (number := getattr(options, flag)) is not None and number < 1:
            raise UsageError(f"--{flag} must be at least 1, not {number}")
    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Completes, what="complete")
    images, shown = model.spec.kind == "images", model.spec.kind == "tokens" and options.out is None
    default = found.path / "samples" / f"{found.step}-completed-seed{options.seed}{asked.ending(model.spec.kind)}"
    path = default if options.out is None else pathlib.Path(options.out)
    grid = images and path.suffix == ".png"
    split = asked.data(found, options.source, options.data.on_error)[1]
    batch = examples.first(split, options.n or (8 if grid else 4 if shown else len(split)), model.window)
    keep = masks.mask(model.spec, options.mask, batch.x.shape[1])
    label = None if options.label is None else asked.labels(model, options.label, len(batch.x) * options.each, options.seed)
    knobs = {} if options.temperature is None else {"temperature": options.temperature}
    result = examples.complete(model, batch.x, keep, each=options.each, seed=options.seed, label=label, **knobs)
    if shown:
        print(RULE.join(str(text) for text in found.codec.show(result.flatten(0, 1))))
        return
    if grid:
        write_grid(strips(batch.x, keep, result), path, 2 + options.each)
    else:
        found.codec.write(result.flatten(0, 1), path, label)
    print(path)
