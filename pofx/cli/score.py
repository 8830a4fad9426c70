"""Says how likely data are under a model: pofx score RUN --data FILE."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import tyro

from pofx.cli import Reading

if TYPE_CHECKING:
    import pathlib

    from pofx.core import Model
    from pofx.data import Dataset
    from pofx.data.dataset import Split
    from pofx.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Says how likely data are under a model."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    source: str | None = None
    """A data source, all of which is scored; by default the held-out part of the run's own."""
    data: Reading = dataclasses.field(default_factory=Reading)
    text: str | None = None
    """A text to score, given here (models of text)."""
    n: int | None = None
    """At most so many examples, of a text so many tokens, from the first on."""
    out: str | None = None
    """Of a text a page, .html, that shows its surprising places, by default in RUN/samples; of other data .npz, .npy or .csv with
    the nats of each example, which are written nowhere by default."""


def run(options: Options) -> None:
    """Scores, prints and writes."""
    import pathlib

    from pofx import asked, discovery, examples
    from pofx.core import Predicts, Scores, UsageError
    from pofx.data.dataset import Split

    if options.n is not None and options.n < 1:
        raise UsageError(f"--n must be at least 1, not {options.n}")
    if options.text is not None and options.source is not None:
        raise UsageError("--text is the text to score: leave --data out")
    found = asked.opened(options.run)
    model = found.model()
    texts = model.spec.kind == "tokens"
    discovery.require(model, Scores, *([Predicts] if texts else []), what="score")
    out = None if options.out is None else pathlib.Path(options.out)
    if options.text is not None:
        if not texts:
            raise UsageError(f"--text is for models of text, and this run models {model.spec.kind}: give --data")
        if not options.text:
            raise UsageError("--text is empty: give the text to score")
        split, name = Split(asked.text(found.codec, options.text), tokens=True), "the text given"
    else:
        dataset, split = asked.data(found, options.source, options.data.on_error)
        name = f"the {examples.held_out(dataset)[0]} part of {dataset.source}" if options.source is None else dataset.source
    if texts:
        _text(model, found, split, name, options.n, out)
    else:
        _others(model, dataset, split, name, options.n, out)


def _text(model: "Model", run: "Run", split: "Split", name: str, n: int | None, out: "pathlib.Path | None") -> None:
    from pofx import page, surprise
    from pofx.core import UsageError

    path = run.path / "samples" / f"{run.step}-score.html" if out is None else out
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the page of a text's surprising places is written to .html, not to {path.name}")
    found, codec = surprise.measure(model, split, n), run.codec
    print(f"{name}, read as one text{surprise.context(model)}")
    for what, value in surprise.summary(found, codec):  # type: ignore[arg-type]
        print(f"{what:<22}{value}")
    title = f"How surprising is {name}?"
    print(page.write(path, surprise.document(found, codec, title, f"{run.info['model']}, {run.path}, move {run.step:,}")))  # type: ignore[arg-type]


def _others(model: "Model", dataset: "Dataset", split: "Split", name: str, n: int | None, out: "pathlib.Path | None") -> None:
    import math

    import numpy as np
    import torch

    from pofx import examples
    from pofx.core import UsageError
    from pofx.data.files import whole
    from pofx.data.vectors import write_csv

    if out is not None and out.suffix not in (".npz", ".npy", ".csv"):
        raise UsageError(f"likelihoods are written to .npz, .npy or .csv, not to {out.name}")
    nats, kind, space = [], "", ""
    with examples.asking(model):
        for batch in split.batches(examples.PART, limit=n):
            label = examples.conditions(model, batch.label)
            of = None if label is None else label.to(model.device)
            found = model.log_prob(batch.x.to(model.device), label=of)  # type: ignore[attr-defined]
            # Densities are told in the source's units.
            shift = dataset.codec.log_jacobian() if found.space == "density" else 0.0
            nats.append(found.nats.cpu().double() + shift)
            kind, space = found.kind, found.space
    values = torch.cat(nats).numpy()
    print(f"{name}: {len(values):,} examples, {space}, {kind}")
    print(f"{'nats per example':<22}{-values.mean():.4f}")
    if space in ("8-bit", "binary"):
        print(f"{'bits per dimension':<22}{-values.mean() / math.log(2) / math.prod(model.spec.shape):.4f}")
    if out is None:
        return
    if out.suffix == ".csv":
        write_csv(out, [("log_prob", values)])
    else:
        with whole(out) as temporary:
            np.save(temporary, values) if out.suffix == ".npy" else np.savez_compressed(temporary, log_prob=values)
    print(out)
