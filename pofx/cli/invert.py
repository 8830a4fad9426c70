"""Finds the codes that a model turns into given examples, for models that do not encode: pofx invert RUN --data PICTURES."""

import dataclasses
from typing import Annotated

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Finds the codes that a model turns into given examples, by gradient descent."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source whose examples are sought; by default held-out examples of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    n: int | None = None
    """How many, from the first on. By default 20 of the run's own data, and all of others."""
    starts: int = 4
    """Draws of the prior that are gone out from for each example: the nearest ones of some 1,000."""
    steps: int = 300
    """Moves from each of them."""
    lr: float = 0.1
    """Rate of the first half of the moves, in standard deviations of the prior; it falls to 0 in the other."""
    feature_weight: float = 0.01
    """Weight of the distance in features beside the squared error (images); 0: squared error alone."""
    prior_weight: float = 0.001
    """Weight of the code's mean square in standard deviations of the prior, which keeps it where the prior is; 0: anywhere."""
    seed: int = 0
    """Equal seeds give equal codes."""
    out: str | None = None
    """A folder for codes.npz (`z`, `label`), codes.npy, the examples made of them, and pairs.png, both beside each other with their
    PSNR. By default RUN/samples/STEP-inverted-NNN."""
    quiet: bool = False
    """No bar."""


def run(options: Options) -> None:
    """Seeks, writes, and prints how near the results are."""
    import pathlib

    from pofx import asked, discovery, examples, features, inversion
    from pofx.core import Decodes, UsageError
    from pofx.progress import Steps, tell
    from pofx.run import next_folder

    if options.n is not None and options.n < 1:
        raise UsageError(f"--n must be at least 1, not {options.n}")
    wanted = {field.name: getattr(options, field.name) for field in dataclasses.fields(inversion.Settings)}
    settings = inversion.Settings(**wanted)
    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Decodes, what="invert")
    path = next_folder(found.path / "samples", f"{found.step}-inverted") if options.out is None else pathlib.Path(options.out)
    dataset, split = asked.data(found, options.source, options.data.on_error)
    batch = examples.first(split, options.n or (20 if options.source is None else len(split)), model.window)
    if batch.label is None and getattr(model.config, "conditional", False):
        tell(["these examples have no labels: codes are sought under none, as a tenth of the training was; labelled data give better ones"])
    with Steps(1 + (len(batch.x) - 1) // inversion.PART, quiet=options.quiet) as bar:
        smooth = features.smooth(found.dataset() if options.source is not None else dataset) if settings.feature_weight else None
        result = inversion.invert(model, batch, settings, features=None if smooth is None else smooth[1], bar=bar)
    inversion.write(result, batch, dataset, path)
    print(f"{path}: {inversion.describe(result, dataset)}")
