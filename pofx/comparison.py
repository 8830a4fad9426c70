"""Several models' evaluations side by side: what may stand in one line, and which difference is more than chance."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from pofx.evaluate import ABOUT, Report, framed, shared
from pofx.findings import Draws, Flag, Row, half, number, rounded

#: Stands beside the name of a model with a flag, and beside its numbers that would be bold.
FLAGGED = "!"
#: Characters of a terminal for the name of a measure, for a number with its interval beside it, and below it or without.
MEASURE, ROOMY, NARROW = 22, 20, 10
LEGEND = (
    "↓ lower, ↑ higher, ≈ nearer to real data is better; bold: better than every other model here by more than the 95 % interval of "
    "their difference; ± is half of a 95 % interval; real is real data against real data at the same n; ! marks a flagged model, "
    "which is never bold"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a column: its folder (with the checkpoint, where one was asked for), seed, seconds of training, report."""

    run: str
    seed: int
    seconds: float | None
    report: Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A model with its config: one run, or several seeds."""

    name: str
    members: tuple[Member, ...]

    @property
    def flags(self) -> list[tuple[str, Flag]]:
        """Every flag with whose it is."""
        many = len(self.members) > 1
        return [(f"{self.name}, seed {m.seed}" if many else self.name, flag) for m in self.members for flag in m.report.flags]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One measure of one column, an entry a seed: values, standard errors, the floors they were measured beside.

    note: what is said of this column's numbers alone. draws: what the errors were computed from.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float | None, ...]
    floors: tuple[float | None, ...]
    note: str = ""
    draws: tuple[Draws | None, ...] = dataclasses.field(default=(), compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much worse one model is than another, in the measure's unit, with half of its 95 % interval."""

    value: float
    half_width: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.value) > self.half_width

    def __str__(self) -> str:
        return f"{number(abs(self.value))} ± {half(self.half_width)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One measure over all columns that have it.

    row: what it is (its `model` is no column's); real data's and trivial numbers are medians where seeds differ in data.
    """

    row: Row
    cells: dict[str, Cell]

    def badness(self, value: float, floor: float | None) -> float:
        """Lower is better, whatever the measure; nan where it has no better."""
        match self.row.better:
            case "lower":
                return value
            case "higher":
                return -value
            case "floor":
                return abs(value - floor) if floor is not None else math.nan
            case "neither":
                return math.nan

    def scores(self, name: str) -> list[float]:
        """The badness of each seed."""
        cell = self.cells[name]
        return [self.badness(value, floor) for value, floor in zip(cell.values, cell.floors, strict=True)]

    @property
    def ranked(self) -> list[str]:
        """Columns with finite numbers, the best mean over seeds first."""
        means = {name: statistics.fmean(self.scores(name)) for name in self.cells}
        return sorted((name for name, mean in means.items() if math.isfinite(mean)), key=means.__getitem__)

    @property
    def best(self) -> str | None:
        """The column that is clearly better than each other one."""
        first, *others = self.ranked or [None]
        if first is None or not others:
            return None
        found = [self.difference(first, other) for other in others]
        return first if all(one is not None and one.value < 0 and one.clear for one in found) else None

    def difference(self, a: str, b: str) -> Difference | None:
        """Mean badness of a minus that of b; None where nothing is known of its error.

        Its variance is that of the measurement, paired example by example (or subset by subset) where both runs were
        measured on the same, and that of seeds, whose degrees of freedom are few (Welch and Satterthwaite).

        References:
            The Generalization of "Student's" Problem when Several Different Population Variances are Involved
            (Welch, 1947), https://doi.org/10.1093/biomet/34.1-2.28
        """
        measured = self._measured(a, b)
        if measured is None:
            # The spread of seeds holds that of measuring too, where there is one.
            several = all(len(self.cells[name].seeds) > 1 for name in (a, b))
            if not several or self.spread(a)[0] + self.spread(b)[0] == 0:
                return None
            measured = 0.0
        return Difference(statistics.fmean(self.scores(a)) - statistics.fmean(self.scores(b)), _half_width(measured, self._means(a, b)))

    def half_width(self, name: str) -> float | None:
        """Half of the 95 % interval of one run, or of a column's mean over seeds; None where nothing is known of the error."""
        cell = self.cells[name]
        errors = [error for error in cell.errors if error is not None and math.isfinite(error)]
        if not errors and self.spread(name)[0] == 0:
            return None
        measured = statistics.fmean(error**2 for error in errors) if errors else 0.0
        if len(cell.seeds) > 1:
            # Of the values themselves: badness may be their distance from real data's.
            return _half_width(measured, [(float(np.var(cell.values, ddof=1)) / len(cell.values), len(cell.values) - 1)])
        return _half_width(measured, []) if errors else None

    def _means(self, *names: str) -> list[tuple[float, float]]:
        """For each column, the variance of its mean badness over seeds and its degrees of freedom."""
        return [(variance / len(self.cells[name].seeds), freedom) for name in names for variance, freedom in [self.spread(name)]]

    def spread(self, name: str) -> tuple[float, float]:
        """Variance of one seed's badness and its degrees of freedom; of a column of one seed, the mean of the others'."""
        own = {other: self.scores(other) for other in ([name] if len(self.cells[name].seeds) > 1 else self.cells)}
        several = [np.var(scores, ddof=1) for scores in own.values() if len(scores) > 1 and np.isfinite(scores).all()]
        freedom = sum(len(scores) - 1 for scores in own.values() if np.isfinite(scores).all())
        return (float(np.mean(several)), freedom) if several else (0.0, math.inf)

    @property
    def least(self) -> float | None:
        """The difference between two runs, one seed each, below which there is no evidence; None where it is not known."""
        names = self.ranked
        errors = [self._measured(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        known = [error for error in errors if error is not None]
        if not known:
            return None
        spreads = [self.spread(name) for name in names if len(self.cells[name].seeds) > 1]
        seeds = float(np.mean([variance for variance, _ in spreads])) if spreads else 0.0
        freedom = sum(freedom for _, freedom in spreads) if seeds > 0 else math.inf
        return _quantile(freedom) * math.sqrt(2 * seeds + float(np.mean(known)))

    def _measured(self, a: str, b: str) -> float | None:
        """Variance of the difference of two runs that comes from measuring on finitely many examples."""
        x, y = self.cells[a], self.cells[b]
        common = [(x.seeds.index(seed), y.seeds.index(seed)) for seed in x.seeds if seed in y.seeds]
        # All runs were measured on the same examples, whatever their seed; equal seeds stand in for all pairs.
        pairs = common or [(i, j) for i in range(len(x.seeds)) for j in range(len(y.seeds))]
        found = [self._error(x, i, y, j) for i, j in pairs]
        return statistics.fmean(found) if all(math.isfinite(variance) for variance in found) else None

    def _error(self, x: Cell, i: int, y: Cell, j: int) -> float:
        one, other = x.draws[i] if x.draws else None, y.draws[j] if y.draws else None
        if one is not None and other is not None:
            signed = (Draws(d.kind, self._sign(c, k) * d.values) for d, c, k in ((one, x, i), (other, y, j)))
            difference = next(signed).minus(next(signed))
            if difference is not None:
                return difference.error() ** 2
        errors = x.errors[i], y.errors[j]
        return math.nan if None in errors else sum(error**2 for error in errors if error is not None)

    def _sign(self, cell: Cell, i: int) -> float:
        """Whether a larger value is worse."""
        floor = cell.floors[i]
        if self.row.better == "floor" and floor is not None:
            return 1.0 if cell.values[i] >= floor else -1.0
        return -1.0 if self.row.better == "higher" else 1.0

    def texts(self, name: str) -> list[str]:
        """A column's numbers: one run's with its interval, or the median and the worst of several seeds."""
        if name not in self.cells:
            return []
        cell = self.cells[name]
        if len(cell.values) == 1:
            return [dataclasses.replace(self.row, model=cell.values[0], error=cell.errors[0]).value]
        median, low, high = number(statistics.median(cell.values)), number(min(cell.values)), number(max(cell.values))
        half_width = self.half_width(name)
        interval = f" ± {half(half_width)}" if half_width is not None else ""
        if low == high:
            return [median + interval]
        if self.row.better == "neither":
            return [median, f"{low} to {high}"]
        return [median + interval, f"worst {number(self.worst(name))}"]

    def worst(self, name: str) -> float:
        """The value of a column's worst seed; one that is not a number is worse than any."""
        return self.cells[name].values[int(np.argmax(np.nan_to_num(self.scores(name), nan=math.inf)))]


def _half_width(measured: float, spreads: list[tuple[float, float]]) -> float:
    """Half of a 95 % interval from the variance of measuring, and variances of means with their degrees of freedom."""
    total = measured + sum(variance for variance, _ in spreads)
    bottom = sum(variance**2 / freedom for variance, freedom in spreads if variance > 0)
    return _quantile(total**2 / bottom if bottom > 0 else math.inf) * math.sqrt(total)


def _quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `side_by_side` found: columns, lines in the order of an evaluation, and notes on how to read them."""

    data: str
    part: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.columns]

    @property
    def flags(self) -> list[tuple[str, Flag]]:
        """Every flag with whose it is."""
        return [flag for column in self.columns for flag in column.flags]

    def to_json(self) -> dict[str, Any]:
        """JSON-able values; numbers that are not finite are null."""

        def finite(values: Iterable[float | None]) -> list[float | None]:
            return [None if value is None or not math.isfinite(value) else value for value in values]

        return {
            "data": self.data,
            "part": self.part,
            "columns": [
                {"name": column.name, "runs": [{"run": m.run, "seed": m.seed, "seconds": m.seconds} for m in column.members]}
                for column in self.columns
            ],
            "lines": [
                {key: value for key, value in line.row.to_json().items() if key not in ("model", "error")}
                | {
                    "best": line.best,
                    "models": {
                        name: {
                            "seeds": list(cell.seeds),
                            "values": finite(cell.values),
                            "errors": finite(cell.errors),
                            "median": finite([statistics.median(cell.values)])[0],
                            "half_width": finite([line.half_width(name)])[0],
                            "note": cell.note,
                        }
                        for name, cell in line.cells.items()
                    },
                }
                for line in self.lines
            ],
            "flags": [{"model": whose, **dataclasses.asdict(flag)} for whose, flag in self.flags],
            "notes": list(self.notes),
        }

    def marked(self, line: Line, name: str) -> tuple[list[str], bool]:
        """A column's numbers on a line, and whether they are bold; one that would be but is flagged gets `FLAGGED` instead."""
        texts, best = line.texts(name), name == line.best
        if best and name in self.suspects:
            return [f"{texts[0]} {FLAGGED}", *texts[1:]], False
        return texts, best

    @property
    def suspects(self) -> set[str]:
        """Columns with a flag."""
        return {column.name for column in self.columns if column.flags}

    def headings(self) -> list[str]:
        """The columns' names, those that are flagged marked."""
        return [f"{name} {FLAGGED}" if name in self.suspects else name for name in self.names]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        seeds = {len(column.members) for column in self.columns}
        every = f", {max(seeds)} seeds a model" if len(seeds) == 1 and max(seeds) > 1 else ""
        yield Text(f"{self.data} ({self.part} part{every})", style="bold")
        roomy = options.max_width >= MEASURE + ROOMY * len(self.columns) + NARROW + ROOMY
        # What does not fit beside each other comes one below the other.
        several = len(self.columns) if roomy else max(1, (options.max_width - MEASURE - 2 * NARROW + 2) // NARROW)
        for about, found in groupby(self.lines, lambda line: line.row.about):
            lines = list(found)
            for start in range(0, len(self.columns), several):
                columns = self.columns[start : start + several]
                here = [line for line in lines if any(column.name in line.cells for column in columns)]
                if here:
                    yield self._table(about, here, columns, roomy=roomy, counted=len(seeds) > 1)
                    yield ""
        yield from (Text(f"! {whose}: {flag.check}: {flag.sentence}", style="bold red") for whose, flag in self.flags)
        yield from (Text(f"note: {note}", style="yellow") for note in self.notes)
        yield Text(
            LEGEND + ("" if roomy else "; trivial: the best model without learning; more on a wider terminal or with --out"), style="dim"
        )

    def _table(self, about: str, lines: list[Line], columns: Sequence[Column], *, roomy: bool, counted: bool) -> Table:
        """The lines of one subject; in a narrow table an interval stands below its number, and worst seeds are left out."""
        title, details = shared(about, [line.row for line in lines])
        table, headings = framed(title), dict(zip(self.names, self.headings(), strict=True))
        table.add_column("", width=None if roomy else MEASURE)
        for column in columns:
            table.add_column(
                headings[column.name] + (f"\n{len(column.members)} seeds" if counted else ""), justify="right", overflow="fold"
            )
        for name in ("real", "trivial"):
            table.add_column(name, justify="right", overflow="fold")
        for line in lines:
            row = line.row
            texts = [self._narrow(line, column.name) if not roomy else self.marked(line, column.name) for column in columns]
            cells = [Text("\n".join(text), style="bold" if bold else "") for text, bold in texts]
            if roomy:
                real = number(row.floor) if row.floor is not None else ""
                trivial = "\n".join(f"{number(value)} {name}" for name, value in row.baselines.items())
            else:
                best = min(row.baselines.values(), key=lambda value: line.badness(value, row.floor), default=None)
                real, trivial = (number(value, 3) if value is not None else "" for value in (row.floor, best))
            table.add_row(Text.assemble(f"{row.arrow} {row.name}", "\n  ", (details(row), "dim")), *cells, real, trivial)
        return table

    def _narrow(self, line: Line, name: str) -> tuple[list[str], bool]:
        """As `marked`, in few characters: the digits that its interval leaves, and the interval below; no worst seed."""
        texts, bold = self.marked(line, name)
        if not texts:
            return [], False
        value, width = statistics.median(line.cells[name].values), line.half_width(name)
        mark = f" {FLAGGED}" if texts[0].endswith(FLAGGED) else ""
        return [rounded(value, width) + mark, *([f"±{half(width)}"] if width is not None else [])], bold


def side_by_side(columns: Sequence[Column]) -> Comparison:
    """The columns' reports, which are of the same data and part, line by line; only what is comparable shares a line."""
    found: dict[tuple[Any, ...], dict[str, list[tuple[Member, Row]]]] = {}
    for column in columns:
        for member in column.members:
            for row in member.report.rows:
                found.setdefault(row.comparable, {}).setdefault(column.name, []).append((member, row))
    lines = sorted((_line(entries) for entries in found.values()), key=lambda line: ABOUT.index(line.row.about))
    report = columns[0].members[0].report
    return Comparison(data=report.data, part=report.part, columns=tuple(columns), lines=tuple(lines), notes=tuple(_notes(columns)))


def _line(entries: dict[str, list[tuple[Member, Row]]]) -> Line:
    rows = [row for pairs in entries.values() for _, row in pairs]
    common = [piece for piece in rows[0].note.split("; ") if all(piece in row.note.split("; ") for row in rows)]
    floors = [row.floor for row in rows if row.floor is not None]
    baselines: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.baselines.items():
            baselines.setdefault(name, []).append(value)
    shared = dataclasses.replace(
        rows[0],
        model=math.nan,
        error=None,
        draws=None,
        note="; ".join(common),
        floor=statistics.median(floors) if floors else None,
        baselines={name: statistics.median(values) for name, values in baselines.items()},
    )
    cells = {
        name: Cell(
            seeds=tuple(member.seed for member, _ in pairs),
            values=tuple(row.model for _, row in pairs),
            errors=tuple(row.error for _, row in pairs),
            floors=tuple(row.floor for _, row in pairs),
            draws=tuple(row.draws for _, row in pairs),
            note="; ".join(piece for piece in pairs[0][1].note.split("; ") if piece not in common),
        )
        for name, pairs in entries.items()
    }
    return Line(row=shared, cells=cells)


def _notes(columns: Sequence[Column]) -> list[str]:
    members = [member for column in columns for member in column.members]
    notes = list(dict.fromkeys(warning for member in members for warning in member.report.warnings))
    if len({member.report.full for member in members}) > 1:
        brief = next(member.run for member in members if not member.report.full)
        notes.append(f"some were measured with --full and some without, so that few lines are shared: pofx evaluate {brief} --full")
    if all(len(column.members) == 1 for column in columns):
        notes.append("one run a model: the intervals speak of these runs, and another seed may differ by more")
    looks = max(member.report.looks for member in members)
    if looks > 1:
        notes.append(f"the {members[0].report.part} part has been looked at up to {looks} times: choices made on it are fitted to it")
    return notes
