"""Trains every model that fits the data for equal times and says which to take: pofx bakeoff --data SOURCE --minutes M."""

import dataclasses

from pofx import data as sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Trains every model that fits the data for equal times, chooses on validation, measures on test, says which to take."""

    source: str | None = None
    """A built-in name (see `pofx list data`) or a path: a folder of images, .npy, .npz, IDX, .csv, .parquet, .txt."""
    minutes: float | None = None
    """Minutes of training in total, 10 by default, which models and seeds share equally; evaluation comes on top."""
    models: tuple[str, ...] = ()
    """Models to try; by default all that can learn these data and then sample, score or encode."""
    seeds: int | None = None
    """Runs of each model; 2 by default."""
    run: str | None = None
    """Folder of the bakeoff; one that was stopped goes on. By default runs/bakeoff-DATA-NNN."""
    quiet: bool = False
    """No progress."""
    data: sources.Options = dataclasses.field(default_factory=sources.Options)


def run(options: Options) -> None:
    """Trains, measures, prints what to take and where the page is."""
    import pathlib

    from pofx import bakeoff
    from pofx.core import UsageError

    if options.run is None and options.source is None:
        raise UsageError("name the data: pofx bakeoff --data SOURCE --minutes M")
    path = bakeoff.folder(str(options.source)) if options.run is None else pathlib.Path(options.run)
    plan = bakeoff.open_plan(path, options.source, options.minutes, options.models, options.seeds, options.data)
    for sentence in bakeoff.Bakeoff(path, plan, quiet=options.quiet).run():
        print(sentence)
    print(path / bakeoff.PAGE)
