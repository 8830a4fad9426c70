"""Walks from one example to another through the codes: pofx interpolate RUN."""

import dataclasses
from typing import Annotated, Literal

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Walks from one example to another through the codes."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source whose first examples are the ends; by default held-out examples of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    rows: int = 8
    """How many walks."""
    steps: int = 10
    """Examples of one walk, its ends among them."""
    path: Literal["linear", "spherical"] = "linear"
    """Straight through the codes, or along the sphere on which codes drawn from N(0, I) lie in many dimensions."""
    label: str | None = None
    """Of conditional models, what the walks are of: as `pofx sample` takes it. By default the label of the example that a walk
    begins with, or one that is drawn."""
    seed: int = 0
    """Of the ends, where the model does not encode and they are drawn from its prior."""
    out: str | None = None
    """.png (a walk a row), .npz, .csv, .txt. By default a file in RUN/samples; texts go to standard output, one a line."""


def run(options: Options) -> None:
    """Interpolates and writes."""
    import pathlib

    from pofx import asked, discovery, examples
    from pofx.core import Decodes, Encodes, UsageError
    from pofx.data.images import write_grid
    from pofx.data.text import line
    from pofx.figures.interpolation import walk

    for flag in ("rows", "steps"):
        if getattr(options, flag) < (least := 1 + (flag == "steps")):
            raise UsageError(f"--{flag} must be at least {least}, not {getattr(options, flag)}")
    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Decodes, what="interpolate")
    if Encodes in model.capabilities:
        split = asked.data(found, options.source, options.data.on_error)[1]
        batch = examples.first(split, 2 * options.rows, model.window)
        ends, label = examples.encode(model, batch), batch.label
    elif options.source is not None:
        raise UsageError(f"this {type(model).__name__} does not encode, so that its walks are between draws of its prior: leave --data out")
    else:
        ends, label = examples.prior_codes(model, 2 * options.rows, options.seed), asked.labels(model, None, options.rows, options.seed)
    if len(ends) < 2:
        raise UsageError("a walk needs two examples: give data with more")
    rows = len(ends) // 2
    if options.label is not None:
        label = asked.labels(model, options.label, rows, options.seed)
    of = None if label is None else label[:rows].repeat_interleave(options.steps, 0)
    x = examples.decode(model, walk(ends[:rows], ends[rows : 2 * rows], options.steps, options.path).flatten(0, 1), of)
    if model.spec.kind == "tokens" and options.out is None:
        texts = [line(str(text)) for text in found.codec.show(x)]
        print("\n\n".join("\n".join(texts[i : i + options.steps]) for i in range(0, len(texts), options.steps)))
        return
    images = model.spec.kind == "images"
    spherical = "-spherical" if options.path == "spherical" else ""
    default = found.path / "samples" / f"{found.step}-interpolations{spherical}{'.png' if images else '.npz'}"
    path = default if options.out is None else pathlib.Path(options.out)
    if images and path.suffix == ".png":
        write_grid(x, path, options.steps)
    else:
        found.codec.write(x, path)
    print(path)
