"""Writes the codes of data: pofx encode RUN."""

import dataclasses
from typing import Annotated

import tyro

from pofx.cli import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Writes the codes of data."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source, all of which is encoded; by default the held-out part of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    out: str | None = None
    """.npz (`z`, `label`), .npy or .csv. By default RUN/samples/STEP-codes.npz."""


def run(options: Options) -> None:
    """Encodes and writes."""
    import pathlib

    import numpy as np
    import torch

    from pofx import asked, discovery, examples
    from pofx.core import Encodes, UsageError
    from pofx.data.files import whole
    from pofx.data.labels import restore
    from pofx.data.vectors import write_csv

    found = asked.opened(options.run)
    model = found.model()
    discovery.require(model, Encodes, what="encode")
    path = found.path / "samples" / f"{found.step}-codes.npz" if options.out is None else pathlib.Path(options.out)
    if path.suffix not in (".npz", ".npy", ".csv"):
        raise UsageError(f"codes are written to .npz, .npy or .csv, not to {path.name}")
    dataset, split = asked.data(found, options.source, options.data.on_error)
    codes, labels = [], []
    for batch in split.batches(examples.PART, window=model.window):
        codes.append(examples.encode(model, batch))
        labels.append(batch.label)
    z = torch.cat(codes).numpy()
    meaning = dataset.spec.label
    label = None if meaning is None or labels[0] is None else restore(torch.cat([part for part in labels if part is not None]), meaning)
    if path.suffix == ".csv":
        columns = [(f"z{i}", column) for i, column in enumerate(z.reshape(len(z), -1).T)]
        if label is not None and meaning is not None:
            names = meaning.names if label.ndim == 2 else ("label",)
            columns += list(zip(names, label.reshape(len(label), -1).T, strict=True))
        write_csv(path, columns)
    else:
        with whole(path) as temporary:
            if path.suffix == ".npy":
                np.save(temporary, z)
            else:
                np.savez_compressed(temporary, z=z, **({} if label is None else {"label": label}))
    print(path)
