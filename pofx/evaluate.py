"""How good is a trained model? Every metric that its capabilities and data allow, on data that training did not see."""

import dataclasses
import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from pofx import data, discovery, examples, priors
from pofx.core import Model, Samples, UsageError
from pofx.data.dataset import Dataset, Split
from pofx.findings import Draws, Flag, Row, number
from pofx.progress import Steps
from pofx.subject import Subject

if TYPE_CHECKING:
    import pathlib

    from pofx.run import Run

#: The files of a run that hold its evaluation, and the draws behind its intervals.
NAME, DRAWS = "evaluation.json", "evaluation.npz"
#: Distances between samples and real data by which samplers are ranked, the one that sees most first.
DISTANCES = ("kernel MMD²", "kernel distance (KID)", "divergence of 3-grams")
#: Fewer samples (tokens, in texts) than this leave the sets too small for their distances to say much.
ENOUGH = 1000
#: Examples that are hashed at once.
HASHED = 1024
#: Columns of a terminal from which on notes have room; the page has them all.
WIDE = 100
#: The order in which rows are shown.
ABOUT = ("likelihood", "forecasts", "samples", "labels", "memorisation", "reconstruction", "codes", "cost")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What `evaluate` found.

    model: its name. data: source; part: of it. fingerprint: of the data. step: of the checkpoint, in moves.
    looks: how often this run has been measured on this part. warnings: what to keep in mind of all rows.
    prior: the fitted prior that codes of samples were drawn from; empty for the model's own.
    """

    model: str
    data: str
    part: str
    fingerprint: str
    step: int | None
    rows: tuple[Row, ...]
    flags: tuple[Flag, ...] = ()
    warnings: tuple[str, ...] = ()
    looks: int = 1
    full: bool = False
    prior: str = ""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {
            "rows": [row.to_json() for row in self.rows],
            "flags": [dataclasses.asdict(flag) for flag in self.flags],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], draws: dict[int, Draws] | None = None) -> "Report":
        """The report that `to_json` wrote."""
        rows = tuple(Row.from_json(row, (draws or {}).get(i)) for i, row in enumerate(values["rows"]))
        flags = tuple(Flag(**flag) for flag in values["flags"])
        return cls(**{**values, "rows": rows, "flags": flags, "warnings": tuple(values["warnings"])})

    @property
    def headline(self) -> list[Row]:
        """The few rows that say most: a distance of samples, a likelihood, an error of reconstructions, a probe of codes."""
        distances = [row for name in DISTANCES for row in self.rows if row.about == "samples" and row.name.startswith(name)]
        likelihoods = [row for row in self.rows if row.about == "likelihood"]
        errors = [row for row in self.rows if row.about == "reconstruction" and row.better == "lower"]
        # Probes with more labels come later.
        probes = [row for row in reversed(self.rows) if row.about == "codes" and row.name.startswith("linear probe")]
        return [rows[0] for rows in (distances, likelihoods, errors, probes) if rows]

    @property
    def heading(self) -> str:
        """What was measured on what."""
        at = f" at move {self.step:,}" if self.step is not None else ""
        prior = f", codes from the prior {self.prior}" if self.prior else ""
        return f"{self.model}{at} on {self.data} ({self.part} part, look {self.looks} at it){prior}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(self.heading, style="bold")
        for about in dict.fromkeys(row.about for row in self.rows):
            yield _table(about, [row for row in self.rows if row.about == about], notes=options.max_width >= WIDE)
            yield ""
        yield Text("↓ lower, ↑ higher, ≈ nearer to real data is better; intervals are 95 %", style="dim")
        yield from (Text(f"! {flag.check}: {flag.sentence}", style="bold red") for flag in self.flags)
        if not self.flags:
            yield Text("no check of this evaluation flags the model; how near it comes to real data is what the table says", style="dim")
        yield from (Text(f"note: {sentence}", style="yellow") for sentence in self.warnings)

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def shared(about: str, rows: Sequence[Row]) -> tuple[str, Callable[[Row], str]]:
    """A heading with what all (of features: most) rows of a subject share, and what each row has to say besides."""
    sizes, features = {row.n for row in rows}, {row.features for row in rows}
    # Costs are counted in different things.
    counted = about != "cost"
    most = max(features, key=lambda name: sum(row.features == name for row in rows))
    title = ", ".join(filter(None, (about, f"n = {max(sizes):,}" if counted and len(sizes) == 1 else "", most and f"in {most}")))

    def details(row: Row) -> str:
        size = f"n = {row.n:,}" if counted and len(sizes) > 1 else ""
        return ", ".join(filter(None, (row.unit, row.space, size, f"in {row.features}" if row.features not in ("", most) else "")))

    return title, details


def framed(title: str) -> Table:
    """An empty table under its heading."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _table(about: str, rows: list[Row], *, notes: bool) -> Table:
    """The rows of one subject; what all of them share stands in the title."""
    title, details = shared(about, rows)
    table = framed(title)
    table.add_column("", min_width=max(len(word) for row in rows for word in row.name.split()))
    for name in ("model, 95 %", "real", "trivial"):
        table.add_column(name, justify="right")
    if notes:
        table.add_column("")
    for row in rows:
        trivial = "\n".join(f"{number(v)} {name}" for name, v in row.baselines.items())
        real = number(row.floor) if row.floor is not None else ""
        cells = [f"{row.arrow} {row.name}\n[dim]  {details(row)}[/dim]", row.value, real, trivial]
        table.add_row(*cells, *([f"[dim]{row.note}[/dim]"] if notes else []))
    return table


def evaluate(
    run_or_model: "Run | Model | str | pathlib.Path",
    data: Dataset | str | None = None,
    *,
    full: bool = False,
    features: str = "auto",
    part: str | None = None,
    quiet: bool = True,
) -> Report:
    """What the model's capabilities allow to measure on the test part (else the validation part).

    Arguments:
        run_or_model: a run, its folder, or a model (which then needs `data`).
        data: a data set or source; by default the run's own. Baselines are fitted to the training part of the run's own.
        full: 10,000 samples, likelihoods over the whole part, and bounds with 5,000 importance samples.
        features: what samples are compared in, see `pofx.features.choose`.
        part: test or validation.
        quiet: no bar.
    Raises `UsageError` for data that nothing was held out of.
    """
    if isinstance(run_or_model, Model):
        model, run, step, name = run_or_model, None, None, type(run_or_model).__name__
    else:
        from pofx.run import Run

        run = Run.open(run_or_model)
        model, step, name = run.model(), run.step, run.label
    dataset, train = _datasets(model, run, data)
    found, held = examples.held_out(dataset) if part is None else (part, getattr(dataset, part))
    if held is None or found == "train":
        lacks = f"no {part} part" if part is not None else "neither a test nor a validation part"
        raise UsageError(f"{dataset.source} has {lacks}: give data with one, or --data.validation 0.1")
    fitting = modules(model)
    rows: list[Row] = []
    flags: list[Flag] = []
    with examples.asking(model), Steps(len(fitting), quiet=quiet) as steps:
        info = run.info if run is not None else None
        subject = Subject(model, train, dataset, held, found, full=full, wanted=features, info=info, steps=steps)
        for metric, module in fitting.items():
            steps.step(metric)
            for finding in module.measure(subject):
                (flags if isinstance(finding, Flag) else rows).append(finding)  # type: ignore[arg-type]
    if not any(row.about != "cost" for row in rows):
        raise UsageError(f"this {type(model).__name__} can be measured by nothing here: see pofx list metrics")
    rows.sort(key=lambda row: ABOUT.index(row.about))
    return Report(
        model=name,
        data=dataset.source,
        part=found,
        fingerprint=dataset.fingerprint,
        step=step,
        rows=tuple(rows),
        flags=tuple(flags),
        warnings=(*_warnings(rows, model), *_seen_in_training(train, dataset, held, found)),
        looks=_look(run, dataset, found),
        full=full,
        prior=priors.in_use(model),
    )


def modules(model: Model) -> dict[str, types.ModuleType]:
    """The metrics for which the model has the capabilities and the kind of data."""
    found = {name: discovery.load("metrics", name) for name in discovery.names("metrics")}
    return {name: module for name, module in found.items() if set(module.needs) <= model.capabilities and model.spec.kind in module.kinds}


def _warnings(rows: list[Row], model: Model) -> list[str]:
    """What a reader must keep in mind of all rows."""
    sentences = []
    sizes = [row.n for row in rows if row.about == "samples"]
    if sizes and min(sizes) * (model.window or 1) < ENOUGH:
        sentences.append(
            f"{min(sizes):,} samples against as many held-out examples are few: read distances beside the real-against-real number "
            "at the same n, and trust no small difference"
        )
    if Samples in model.capabilities and not sizes:
        sentences.append("the held-out part is too small to compare samples with: give more data, or a larger --data.validation")
    return sentences


def _seen_in_training(train: Dataset, dataset: Dataset, held: Split, part: str) -> list[str]:
    """What to say where examples of another source's held-out part were trained on."""
    if dataset is train or held.tokens or train.train.tokens:
        return []
    known = {row.tobytes() for batch in train.train.batches(HASHED) for row in batch.x.numpy()}
    again = sum(row.tobytes() in known for batch in held.batches(HASHED) for row in batch.x.numpy())
    if not again:
        return []
    return [f"{again:,} of the {len(held):,} {part} examples of {dataset.source} were trained on: these numbers flatter the model"]


def _look(run: "Run | None", dataset: Dataset, part: str) -> int:
    """Counts this look at a part of the data: choices made on a test part after many looks are overfitted to it."""
    if run is None:
        return 1
    # Read anew: another evaluation may have ended since this one began.
    looks = dict(run.read(run.path).info.get("looks", {}))
    key = f"{part} of {dataset.fingerprint}"
    looks[key] = int(looks.get(key, 0)) + 1
    run.update(looks=looks)
    return looks[key]


def _datasets(model: Model, run: "Run | None", source: Dataset | str | None) -> tuple[Dataset, Dataset]:
    """The data to measure on, and those whose training part the baselines learn from."""
    if isinstance(source, Dataset):
        if (source.spec.kind, source.spec.shape, source.spec.vocabulary) != (model.spec.kind, model.spec.shape, model.spec.vocabulary):
            raise UsageError(f"{source.source} is not what this model was made for: its examples are of another kind or shape")
        if run is None or run.info["data"]["fingerprint"] == source.fingerprint:
            return source, source
        if source.codec != run.codec:
            raise UsageError(
                f"{source.source} was read with another scaling, vocabulary or classes than {run.path}: read it with codec=run.codec, or "
                "give evaluate its name"
            )
        return source, run.dataset()
    if run is not None:
        own = run.dataset()
        return (own if source is None else run.dataset(source)), own
    if source is None:
        raise UsageError("a model alone does not know its data: give evaluate a data set as well")
    dataset = data.load(source)
    return dataset, dataset


def _aside(path: "pathlib.Path", part: str) -> "pathlib.Path":
    """Where the evaluation on a part lies once there is one on another part."""
    return path.with_stem(f"{path.stem}-{part}")


def keep(run: "Run", report: Report) -> None:
    """Writes the evaluation of a run's own data into its folder, with the draws behind it; one on another part stays aside."""
    from pofx.data.files import whole

    path, draws = run.path / NAME, run.path / DRAWS
    if path.exists() and (part := _part(path)) not in (None, report.part):
        for old in (draws, path):
            if old.exists():
                old.replace(_aside(old, str(part)))
    with whole(draws) as temporary, temporary.open("wb") as file:
        np.savez(file, **{f"{row.draws.kind} {i}": row.draws.values for i, row in enumerate(report.rows) if row.draws is not None})
    content = json.dumps(report.to_json() | {"draws": _digest(draws)}, indent=1, ensure_ascii=False)
    with whole(path) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")


def _part(path: "pathlib.Path") -> str | None:
    """The part that a kept evaluation is of; None where it cannot be read, and is not worth keeping."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))["part"]
    except (ValueError, KeyError, TypeError):
        return None
    return part if part in ("validation", "test") else None


def kept(run: "Run", part: str | None = None) -> Report | None:
    """The newest evaluation in a run's folder, or the newest on a part; None where there is none."""
    path, beside = run.path / NAME, run.path / DRAWS
    if part is not None and path.exists() and _part(path) != part:
        path, beside = _aside(path, part), _aside(beside, part)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        digest = values.pop("draws")
        draws: dict[int, Draws] = {}
        # Written one after the other: after a kill in between they do not belong together.
        if beside.exists() and _digest(beside) == digest:
            with np.load(beside, allow_pickle=False) as file:
                draws = {int(key.split()[1]): Draws(key.split()[0], file[key]) for key in file.files}  # type: ignore[arg-type]
        return Report.from_json(values, draws)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is unreadable or of another version: measure again with pofx evaluate {run.path}") from error


def _digest(path: "pathlib.Path") -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(report: Report, path: "pathlib.Path") -> None:
    """Writes the report as JSON, whole or not at all."""
    from pofx.data.files import whole

    with whole(path) as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class _Callable(types.ModuleType):
    """Importing this module puts it in the place of the function `pofx.evaluate`, so it answers calls as the function."""

    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Callable
