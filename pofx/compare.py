"""Several runs side by side: gathers their evaluations, measures what was not measured yet, and writes the page."""

import json
import math
import pathlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pofx import advice, discovery, examples, figures, page, priors, report, specimens
from pofx.comparison import LEGEND, Column, Comparison, Line, Member
from pofx.core import UsageError
from pofx.data.images import grid
from pofx.evaluate import Report, evaluate, keep, kept
from pofx.findings import NORMAL_95, number
from pofx.run import INFO, Run, same_data, trained_on

#: Settings that say how a run was made, not what it computes; those of one column may differ in them.
FREE = frozenset({"seed", "device", "keep", "checkpoint_every", "monitor", "tensorboard"})
#: Held-out images beside the samples.
IMAGES = 64


def gather(references: Sequence["str | pathlib.Path | Run"], *, part: str | None = None, quiet: bool = True) -> tuple[Column, ...]:
    """The runs' evaluations in columns, one for each model with its config; runs that differ in the seed alone share one.

    Arguments:
        references: runs, their folders, or folders that hold runs (of a bakeoff), for all that these hold.
        part: that they are measured on; by default test, else validation. A run that was measured on another part, at
            another checkpoint or not at all is measured now.
    Raises `UsageError` for fewer than two runs, one given twice, and runs on different data.
    """
    runs = [Run.open(one) for reference in references for one in _within(reference)]
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more: pofx compare RUN RUN, or a folder that holds them")
    taken: set[tuple[pathlib.Path, int | None]] = set()
    for run in runs:
        if (run.path.resolve(), run.step) in taken:
            raise UsageError(f"{run.path} is given twice: name each run, or other checkpoints of it, once")
        taken.add((run.path.resolve(), run.step))
    same_data(*map(trained_on, runs))
    return columns([(run, measured(run, part, quiet=quiet)) for run in runs])


def _within(reference: "str | pathlib.Path | Run") -> list["str | pathlib.Path | Run"]:
    """The runs with a checkpoint in a folder that is no run itself; else what was given."""
    if isinstance(reference, Run) or (pathlib.Path(reference) / INFO).exists():
        return [reference]
    paths = sorted(path.parent for path in pathlib.Path(reference).glob(f"*/{INFO}"))
    return [path for path in paths if Run.read(path).info.get("last") is not None] or [reference]


def measured(run: Run, part: str | None = None, *, quiet: bool = True) -> Report:
    """The run's kept evaluation, made and kept first where there is none of this checkpoint, its prior, these data and this part."""
    newest = kept(run)
    # A run's own data are read only where its report does not say all.
    wanted = part or ("test" if newest is not None and newest.part == "test" else examples.held_out(run.dataset())[0])
    found = kept(run, wanted)
    now = (run.step, run.info["data"]["fingerprint"], priors.newest(run))
    if found is not None and (found.step, found.fingerprint, found.prior) == now:
        return found
    found = evaluate(run, part=part, quiet=quiet)
    keep(run, found)
    report.write(run)
    return found


def columns(measurements: Sequence[tuple[Run, Report]]) -> tuple[Column, ...]:
    """Columns of runs with their reports, in the order in which they come; each name is a model's where that is enough."""
    groups: dict[str, list[list[tuple[Run, Report]]]] = {}
    for run, found in measurements:
        settings = {name: value for name, value in run.info["training"].items() if name not in FREE}
        same = groups.setdefault(json.dumps([run.info["model"], run.info["config"], settings], sort_keys=True), [])
        seed = run.info["training"]["seed"]
        # Two runs of one seed are no two seeds.
        room = next((group for group in same if all(other.info["training"]["seed"] != seed for other, _ in group)), None)
        if room is None:
            same.append([(run, found)])
        else:
            room.append((run, found))
    made = [group for same in groups.values() for group in same]
    models = [group[0][0].label for group in made]
    paths = [group[0][0].path for group in made]
    named: list[Column] = []
    for group, model, path in zip(made, models, paths, strict=True):
        run = group[0][0]
        name = model
        if models.count(model) > 1:
            where = path.name if [p.name for p in set(paths)].count(path.name) == 1 else str(path)
            # A folder that was named by the default says the model already.
            name = where if where.startswith(f"{model.replace('_', '-')}-") else f"{model} {where}"
            name += f"@{run.step}" if paths.count(path) > 1 else ""
        if prior := group[0][1].prior.partition(" ")[0]:
            name += f" with the fitted prior {prior}"
        named.append(Column(name=name, members=tuple(_member(one, found) for one, found in group)))
    return tuple(named)


def _member(run: Run, found: Report) -> Member:
    seconds = run.info.get("seconds")
    if seconds is None:
        # A run that was interrupted.
        seconds = max((line["seconds"] for line in run.metrics() if line["step"] <= (run.step or 0)), default=None)
    return Member(run=f"{run.path}@{run.step}", seed=run.info["training"]["seed"], seconds=seconds, report=found)


# ------------------------------------------------------------------------------------------------------------- page


def write(
    path: pathlib.Path, comparison: Comparison, *, title: str = "", before: Sequence[str] = (), after: Sequence[str] = ()
) -> pathlib.Path:
    """Writes the comparison as one page that needs nothing else, and returns its path.

    Arguments:
        before, after: sections of HTML around those of the comparison.
    """
    firsts = {column.name: Run.open(column.members[0].run) for column in comparison.columns}
    sections = [
        *before,
        f"<h2>Samples</h2>{page.paragraphs(['Drawn from the same random numbers by each model.'])}{_samples(firsts)}",
        f"<h2>Cost and quality</h2>{_plot(comparison)}",
        f"<h2>Comparison on the {page.text(comparison.part)} part</h2>{table(comparison)}",
        f"<h2>What was trained on what</h2>{_facts(comparison, firsts)}",
        *after,
        f"<h2>How to read this page</h2>{page.paragraphs(_reading(comparison), '')}",
    ]
    subtitle = f"{len(comparison.columns)} models on {comparison.data}: {', '.join(comparison.names)}"
    return page.write(path, page.document(title or f"Models of {comparison.data}", subtitle, sections))


def table(comparison: Comparison) -> str:
    """Flags, notes and the table of all measures, as HTML."""
    head = ("measure", *comparison.headings(), "real", "trivial", "n")
    groups = [
        (about.capitalize(), [_cells(comparison, line) for line in lines])
        for about, lines in groupby(comparison.lines, lambda line: line.row.about)
    ]
    notes = page.paragraphs([*comparison.notes, f"{LEGEND[0].upper()}{LEGEND[1:]}."])
    return page.flags(comparison.flags) + notes + page.numbers(head, groups)


def _cells(comparison: Comparison, line: Line) -> list[str]:
    row, shown = line.row, []
    for name in comparison.names:
        texts, bold = comparison.marked(line, name)
        value = page.lines(texts)
        note = f"<br>{page.soft(line.cells[name].note)}" if name in line.cells and line.cells[name].note else ""
        shown.append((f"<strong>{value}</strong>" if bold else value) + note)
    return [
        f"{page.text(f'{row.arrow} {row.name}')}<br>{page.soft('; '.join(filter(None, (row.unit, row.space, row.features))))}"
        + page.folded(row.remark),
        *shown,
        page.text(number(row.floor)) if row.floor is not None else "",
        page.lines(f"{number(value)} {name}" for name, value in row.baselines.items()),
        f"{row.n:,}",
    ]


def _plot(comparison: Comparison) -> str:
    lines = [line for use in ("sampling", "likelihood") for line in advice.measures(comparison, use)]
    drawn = [(line, points) for line in lines if (points := _points(comparison, line))]
    if not drawn:
        return page.paragraphs(["No measure of samples or likelihood has a time of training beside it."])
    pictures = "".join(f"<div>{page.picture(_costs(line, points), line.row.name)}</div>" for line, points in drawn)
    return f'{page.paragraphs(["Further down and further left is better; a point is a run, with its 95 % interval."])}<div class="side">{pictures}</div>'


def _points(comparison: Comparison, line: Line) -> dict[str, list[tuple[float, float, float]]]:
    """Seconds of training, value and half of its interval of each run of each column; runs without a time are left out."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for column in comparison.columns:
        cell = line.cells.get(column.name)
        if cell is None:
            continue
        seconds = {member.seed: member.seconds for member in column.members}
        for seed, value, error in zip(cell.seeds, cell.values, cell.errors, strict=True):
            if seconds[seed] is not None and math.isfinite(value):
                found.setdefault(column.name, []).append((seconds[seed], value, NORMAL_95 * (error or 0.0)))
    return found


def _costs(line: Line, points: dict[str, list[tuple[float, float, float]]]) -> Figure:
    figure, axes = figures.canvas(line.row.space or line.row.features, 5.2, 3.8)
    for i, (name, runs) in enumerate(points.items()):
        x, y, error = zip(*runs, strict=True)
        axes.errorbar(x, y, error, fmt="o", capsize=3, color=figures.colour(i), label=name)
    if line.row.floor is not None:
        axes.axhline(line.row.floor, color=figures.REAL, linestyle="--", linewidth=1, label="real data")
    times = [x for runs in points.values() for x, _, _ in runs]
    if max(times) > 20 * min(times) > 0:
        axes.set_xscale("log")
    else:
        # Nearly equal times are shown as such.
        axes.set_xlim(0, 1.1 * max(*times, 1e-3))
    axes.set(xlabel="seconds of training", ylabel=f"{line.row.name}\n{line.row.unit}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _samples(firsts: dict[str, Run]) -> str:
    """Held-out examples beside samples of each model: rows of tables and texts to read, other data as the samples figure."""
    rows: dict[str, Tensor] = {}
    shown: list[tuple[str, Figure]] = []
    lacking: list[str] = []
    for name, run in firsts.items():
        try:
            model, dataset = run.model(), run.dataset()
            if specimens.readable(dataset):
                rows[name] = specimens.draw(model, dataset)
                continue
            if model.spec.kind == "images" and not shown:
                part, held = examples.held_out(dataset)
                shown.append(("real data", figures.picture(grid(examples.first(held, IMAGES).x), f"{part} examples\n{dataset.source}")))
            shown.append((name, figures.draw("samples", model, dataset, run=run, seed=0)))
        except UsageError as error:
            # The page is worth having where the data are gone, and for models that draw nothing.
            lacking.append(f"{name}: {error}")
    pictures = "".join(f"<div><h3>{page.text(name)}</h3>{page.picture(figure, f'samples of {name}')}</div>" for name, figure in shown)
    read = specimens.show(rows, dataset) if rows else ""
    return f'{read}<div class="side">{pictures}</div>{page.paragraphs(lacking)}'


def _facts(comparison: Comparison, firsts: dict[str, Run]) -> str:
    """What all runs share, then what they differ in, a column a model."""
    found: dict[str, dict[str, str]] = {}
    for column in comparison.columns:
        facts = dict(report.facts(firsts[column.name]))
        facts["about"] = discovery.summary("models", firsts[column.name].info["model"])
        facts["seed"] = ", ".join(str(member.seed) for member in column.members)
        facts["runs"] = ", ".join(member.run for member in column.members)
        for name, value in (facts | _config(firsts[column.name].info["config"])).items():
            found.setdefault(name, {})[column.name] = value
    names = comparison.names
    shared = [(fact, values[names[0]]) for fact, values in found.items() if len(values) == len(names) and len(set(values.values())) == 1]
    own = [
        [page.soft(fact), *(page.text(values.get(name, "")) for name in names)]
        for fact, values in found.items()
        if fact not in dict(shared)
    ]
    return page.facts(shared) + page.numbers(("", *names), [("", own)])


def _config(values: dict[str, Any], prefix: str = "model.") -> dict[str, str]:
    """A config as flags and values."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _config(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
    return flat


def _reading(comparison: Comparison) -> list[str]:
    """How to read the page."""
    sentences = [
        "Every number speaks of examples that training did not see. The column real is what real data get against real data, the "
        "column trivial what a model without learning gets: a number says little without both.",
        "A number in bold is better than that of each other model by more than the 95 % interval of the difference. Intervals of "
        "differences are of pairs: both models are measured on the same examples, so that two intervals may overlap and the "
        "difference still be clear. Where nothing is bold there is no evidence that any model is the best. A model that a check has "
        "flagged is never bold: ! stands beside its name, and beside a number that is clearly the best all the same.",
        "Likelihoods of different spaces (8-bit, binary, density, tokens) and numbers in different features or at a different n "
        "stand in lines of their own, since they cannot be ranked together. A bound may be looser for one model than for another.",
    ]
    if any(len(column.members) > 1 for column in comparison.columns):
        sentences.append(
            "Of several seeds of one model the median and the worst are shown, and intervals hold their spread: with two or three "
            "seeds it is known badly, so that only large differences are evidence; each seed more makes the intervals a good deal "
            "narrower. Spreads of several models are not pooled: those of different families may differ by a factor of ten."
        )
    return sentences
