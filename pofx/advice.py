"""Which model to take for what: plain sentences, each with the numbers, intervals and floors that it rests on."""

import dataclasses
import math
import statistics
from typing import Any, Literal

from pofx.comparison import Comparison, Line
from pofx.evaluate import DISTANCES
from pofx.findings import Row, half, number

Use = Literal["sampling", "likelihood", "features", "speed"]
USES: tuple[Use, ...] = ("sampling", "likelihood", "features", "speed")
#: Other measures of samples that are heard.
OPINIONS = ("Fréchet distance", "kernel distance (KID)", "coverage", "nearest-neighbour accuracy")
#: Beginnings of the names of measures by which codes are ranked.
PROBES = ("linear probe", "neighbours of the same class")
#: Clauses that do not begin with a model's name, which keeps its letters.
STARTS = ("it ", "its ", "one ", "no ", "a trivial ", "by luck ", "how ", "differences ")
#: Of the cost of drawing.
SPEED = "ms per sample"
#: Examples below which no choice is worth much, whatever its intervals say: they are themselves estimated from these few.
FEW = 30
#: Seeds of a model from which on one more narrows intervals little.
MANY_SEEDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A column chosen for a use.

    take: its name; None where none can be recommended. row: the measure that the choice rests on.
    said: the column's numbers on the part of the choice. reasons: clauses about the others. rivals: those that there is no
    evidence against. matched: a trivial model is as good or better. flagged: checks that the column failed.
    """

    use: Use
    take: str | None
    row: Row
    said: str
    reasons: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    matched: bool = False
    flagged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON-able values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"row": self.row.to_json()}


def measures(comparison: Comparison, use: Use) -> list[Line]:
    """The lines by which models are ranked for a use, of those that the most models share; several for likelihoods alone,
    whose spaces are never ranked together."""

    def about(*what: str) -> list[Line]:
        return [line for line in comparison.lines if line.row.about in what]

    match use:
        case "sampling":
            found = [line for line in about("samples") if line.row.better == "lower" and any(e is not None for e in _errors(line))]
            found.sort(key=lambda line: _place(line, DISTANCES))
        case "likelihood":
            return _spaces(about("likelihood"))
        case "features":
            probes = [line for line in about("codes") if line.row.better == "higher" and line.row.name.startswith(PROBES)]
            # Probes with more labels come later in a report, and first here.
            probes.reverse()
            probes.sort(key=lambda line: _place(line, PROBES))
            found = probes or [line for line in about("reconstruction") if line.row.better == "lower"]
        case "speed":
            costs = [line for line in about("cost") if line.row.unit == SPEED]
            found = [dataclasses.replace(line, row=dataclasses.replace(line.row, better="lower")) for line in costs]
    return [max(found, key=lambda line: len(line.ranked))] if found else []


def _errors(line: Line) -> list[float | None]:
    return [error for cell in line.cells.values() for error in cell.errors]


def _place(line: Line, names: tuple[str, ...]) -> int:
    return next((i for i, name in enumerate(names) if line.row.name.startswith(name)), len(names))


def _spaces(lines: list[Line]) -> list[Line]:
    """A line for each likelihood space: of several units of one space, the first."""
    kept: list[Line] = []
    seen: dict[str, set[str]] = {}
    for line in lines:
        family = line.row.space.split(",")[0]
        # The same models in another unit are ranked alike.
        if not set(line.cells) <= seen.get(family, set()):
            seen.setdefault(family, set()).update(line.cells)
            kept.append(line)
    return kept


def choose(comparison: Comparison) -> list[Choice]:
    """A choice for each use, and for each space of likelihoods, that some model can be ranked for.

    A model that is flagged for memorisation is not chosen for sampling.
    """
    copying = {column.name for column in comparison.columns if any(flag.check == "memorisation" for _, flag in column.flags)}
    found = [
        _choose(use, line, copying if use == "sampling" else set())
        for use in USES
        for line in measures(comparison, use)
        if line.ranked
    ]  # fmt: skip
    return [_doubted(choice, comparison) for choice in found]


def _doubted(choice: Choice, comparison: Comparison) -> Choice:
    """The choice with what speaks against it: flags of its samples, other measures that say otherwise, missing labels."""
    reasons: list[str] = []
    flagged: tuple[str, ...] = ()
    if choice.use == "sampling" and choice.take is not None:
        flags = [flag for column in comparison.columns if column.name == choice.take for _, flag in column.flags]
        flagged = tuple(dict.fromkeys(flag.check for flag in flags))
        others = [line for line in comparison.lines if line.row.about == "samples" and line.best not in (None, choice.take)]
        named = [f"{line.row.name} ({line.row.features}) says {line.best}" for line in others if line.row.name in OPINIONS]
        reasons += [f"one measure is not all: {', '.join(named)}"] if named else []
    if choice.use == "features" and choice.row.about == "reconstruction":
        reasons.append("no labels are known here, so that codes are judged by reconstruction alone, in which larger ones do better")
    return dataclasses.replace(choice, flagged=flagged, reasons=(*choice.reasons, *reasons))


def _choose(use: Use, line: Line, excluded: set[str]) -> Choice:
    names = [name for name in line.ranked if name not in excluded]
    reasons = [
        f"{name}, {phrase(line, name)}, is left out of this choice: its samples are flagged as copies of training examples"
        for name in line.ranked
        if name in excluded
    ]
    if not names:
        return Choice(use=use, take=None, row=line.row, said="", reasons=tuple(reasons))
    first, *others = names
    rivals = []
    if not others:
        reasons.append(f"no other model here can be ranked by {line.row.name}" + (f" ({line.row.space})" if line.row.space else ""))
    for other in others:
        difference = line.difference(first, other)
        if difference is None:
            reasons.append(f"{other} has {phrase(line, other)}, and no interval of the difference is known")
        elif difference.clear:
            reasons.append(f"it is ahead of {other}, {phrase(line, other)}, by {difference}")
        else:
            rivals.append(other)
            reasons.append(f"its difference of {difference} to {other}, {phrase(line, other)}, is no evidence")
    if others:
        reasons += _seeds(line, names, rivals)
    trivial = _trivial(line, first)
    return Choice(
        use=use,
        take=first,
        rivals=tuple(rivals),
        row=line.row,
        said=phrase(line, first),
        reasons=(*reasons, *trivial),
        matched=bool(trivial),
    )


def _trivial(line: Line, name: str) -> list[str]:
    """What must be said of a model that a trivial one matches."""
    cell, floor = line.cells[name], line.row.floor
    rivals = {other: line.badness(value, floor) for other, value in line.row.baselines.items()}
    if not rivals or sum(line.scores(name)) / len(cell.values) < min(rivals.values()):
        return []
    rival = min(rivals, key=rivals.__getitem__)
    return [f"a trivial model ({rival}) has {number(line.row.baselines[rival])} (n = {line.row.n:,}), which is as good or better"]


def _seeds(line: Line, names: list[str], rivals: list[str]) -> list[str]:
    """What seeds have to do with it: how far single runs differ by luck, and what more seeds would bring."""
    if line.least is None:
        return []
    least = number(line.least)
    if max(len(line.cells[name].seeds) for name in names) == 1:
        return [
            f"differences below {least} are within the error of measuring, and another seed may differ by more: train several of each model"
        ]
    found = [f"by luck of the seed alone two runs can lie {least} apart, so that a smaller difference between single runs is no evidence"]
    k = min(len(line.cells[name].seeds) for name in names)
    if rivals and 1 < k < MANY_SEEDS:
        found.append(
            f"how much luck there is was learned from {k} seeds a model, which makes the intervals wide: with {k + 1} (--seeds {k + 1} of a "
            f"bakeoff) what seeds add to them would be about {100 * _narrower(k):.0f} % of that, and might tell {names[0]} from "
            f"{' and '.join(rivals)}"
        )
    return found


def _narrower(k: int) -> float:
    """The interval of a difference of means over k + 1 seeds each as a share of that over k, for equal spreads of seeds.

    Spreads are not pooled over all models: between families they differ by factors of ten, where pooled 95 % intervals
    cover two times in three.
    """
    from scipy.stats import t

    return float(t.ppf(0.975, 2 * k) / t.ppf(0.975, 2 * (k - 1))) * math.sqrt(k / (k + 1))


def phrase(line: Line, name: str) -> str:
    """A column's numbers in words, with their interval; of several seeds the mean and the worst."""
    cell, width = line.cells[name], line.half_width(name)
    interval = f" ± {half(width)}" if width is not None else ""
    n = f"n = {line.row.n:,}"
    if len(cell.values) == 1:
        return f"{number(cell.values[0])}{interval} ({n})"
    return f"{number(statistics.fmean(cell.values))}{interval} ({n}, {len(cell.values)} seeds, worst {number(line.worst(name))})"


def sentences(choice: Choice, chosen_on: str, final: Comparison | None) -> str:
    """What to take for the use in a short sentence, then with the numbers of the part that nothing was chosen by (`final`) where there is one."""
    row = choice.row
    what = f"{row.name} ({'; '.join(filter(None, (row.unit, row.space, row.features)))})"
    reasons = [f"{reason[0].upper()}{reason[1:]}." if reason.startswith(STARTS) else f"{reason}." for reason in choice.reasons]
    if choice.take is None:
        return " ".join([f"For {choice.use} take none of these.", f"They are ranked by {what}.", *reasons])
    lines = final.lines if final is not None else ()
    alike = [line for line in lines if _alike(line.row, row) and choice.take in line.cells]
    same = [dataclasses.replace(line, row=dataclasses.replace(line.row, better=row.better)) for line in alike]
    floor = same[0].row.floor if same else row.floor
    real = f", where real data have {number(floor)} at the same n" if floor is not None else ""
    doubts = [f"{' and '.join(choice.rivals)} may be as good"] if choice.rivals else []
    doubts += [f"but n = {row.n:,} is too few examples to rely on"] if choice.use != "speed" and row.n < FEW else []
    doubts += ["but a trivial model is as good or better"] if choice.matched else []
    doubts += [f"but flagged for {' and '.join(choice.flagged)}"] if choice.flagged else []
    rivals = f" ({', and '.join(doubts)})" if doubts else ""
    parts = [f"For {choice.use} take {choice.take}{rivals}.", f"On the {chosen_on} part its {what} is {choice.said}{'' if same else real}."]
    tested = [f"On the {final.part} part it is {phrase(same[0], choice.take)}{real}."] if final is not None and same else []
    return " ".join([*parts, *reasons, *tested])


def _alike(a: Row, b: Row) -> bool:
    # The parts differ in size.
    return (a.about, a.name, a.unit, a.features, a.space) == (b.about, b.name, b.unit, b.features, b.space)
