"""Drawn tables beside real ones: single columns, associations of columns, and what a predictor learns from drawn rows."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from jaxtyping import Float, Int64

from pofx import intervals
from pofx.core import Classes, Samples
from pofx.findings import Flag, Row, mean, share

if TYPE_CHECKING:
    from torch import Tensor

    from pofx.data.columns import TableCodec
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"vectors"})

#: Share of real rows that makes a category a mode, the share of its due below which it is missing from samples, and how
#: improbable so few draws must be.
MODE, MISSING, CHANCE = 0.05, 0.1, 1e-3
#: What the level of empty cells is called.
EMPTY = "empty"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns that tables are compared in: those of the source, and whether a number is empty as one more category.

    names, kinds: of each. levels: names of a category's levels, the last for an empty cell; () for numbers.
    sources: the column of `codec.show` behind each.
    """

    names: tuple[str, ...]
    kinds: tuple[Literal["number", "category", "emptiness"], ...]
    levels: tuple[tuple[str, ...], ...]
    sources: tuple[int, ...]

    @classmethod
    def of(cls, codec: "TableCodec") -> "Layout":
        """The layout of a table's codec."""
        found: list[tuple[str, Any, tuple[str, ...], int]] = []
        for i, field in enumerate(codec.fields):
            if field.kind == "category":
                found.append((field.name, "category", (*(EMPTY if level is None else level for level in field.levels), EMPTY), i))
                continue
            found.append((field.name, "number", (), i))
            if field.missing:
                found.append((f"{field.name} being empty", "emptiness", ("no", "yes"), i))
        return cls(*(tuple(part) for part in zip(*found, strict=True)))

    def table(self, shown: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n compared"]:
        """What `codec.show` gives, in these columns: numbers, NaN where empty; numbers of levels."""
        found = []
        for kind, levels, source in zip(self.kinds, self.levels, self.sources, strict=True):
            column = shown[:, source]
            if kind == "category":
                # An empty cell has a number of its own wherever the source's level for it stands.
                column = np.where(np.isnan(column), len(levels) - 1, column)
            elif kind == "emptiness":
                column = np.isnan(column).astype(np.float64)
            found.append(column)
        return np.stack(found, 1)


def column_distances(
    real: Float[np.ndarray, "n columns"], fake: Float[np.ndarray, "m columns"], layout: Layout
) -> Float[np.ndarray, " columns"]:
    """The distance of each column: Kolmogorov and Smirnov's for numbers, total variation for categories; 0 to 1.

    Numbers are compared where they are there; where they are in one table alone, the distance is 1.
    """
    return np.array([
        _smirnov(real[:, i], fake[:, i]) if kind == "number" else _variation(real[:, i], fake[:, i], len(layout.levels[i]))
        for i, kind in enumerate(layout.kinds)
    ])  # fmt: skip


def _smirnov(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import ks_2samp

    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    return float(ks_2samp(a, b, method="asymp").statistic)


def _counts(column: np.ndarray, levels: int) -> np.ndarray:
    return np.bincount(column.astype(np.int64), minlength=levels)


def _variation(a: np.ndarray, b: np.ndarray, levels: int) -> float:
    return float(np.abs(_counts(a, levels) / len(a) - _counts(b, levels) / len(b)).sum() / 2)


def association(table: Float[np.ndarray, "n columns"], layout: Layout) -> Float[np.ndarray, "columns columns"]:
    """Pearson's correlation of two numbers, the correlation ratio of a number and a category, Cramér's V of two categories.

    Over the rows in which both are there; 0 where one never changes. All of it from sums of products.

    References:
        Mathematical Methods of Statistics (Cramér, 1946), chapter 21, https://doi.org/10.1515/9781400883868
    """
    numeric = np.array([kind == "number" for kind in layout.kinds])
    x = table[:, numeric]
    there = (~np.isnan(x)).astype(np.float64)
    # Centred and scaled, so that sums of squares lose no digits.
    centre = _ratio(np.nansum(x, 0), there.sum(0))
    scale = np.sqrt(_ratio(np.nansum((x - centre) ** 2, 0), there.sum(0)))
    x = np.where((there > 0) & (scale > 1e-12 * np.abs(centre)), (x - centre) / np.where(scale > 0, scale, 1), 0)
    levels = [len(found) for found in layout.levels if found]
    onehot = np.concatenate([np.eye(count)[column.astype(np.int64)] for count, column in zip(levels, table[:, ~numeric].T, strict=True)]
                            or [np.empty((len(table), 0))], 1)  # fmt: skip
    groups = np.repeat(np.eye(len(levels)), levels, axis=0)

    # Numbers with numbers: rows in which both are there.
    n, sums, squares = there.T @ there, x.T @ there, (x**2).T @ there
    covariance = _ratio(x.T @ x, n) - _ratio(sums, n) * _ratio(sums.T, n)
    variance = (_ratio(squares, n) - _ratio(sums, n) ** 2).clip(0)
    pearson = _ratio(covariance, np.sqrt(variance * variance.T)).clip(-1, 1)

    # Numbers with categories: the variance of the means of levels.
    total = np.diag(variance) * np.diag(n)
    between = groups.T @ _ratio((onehot.T @ x) ** 2, onehot.T @ there) - _ratio(np.diag(sums) ** 2, np.diag(n))
    eta = np.sqrt(_ratio(between, np.broadcast_to(total, between.shape)).clip(0, 1))

    # Categories with categories: chi-squared over its largest value.
    counts = onehot.T @ onehot
    margin = np.diag(counts)
    chi = (groups.T @ _ratio(counts**2, np.outer(margin, margin)) @ groups - 1).clip(0)
    used = groups.T @ (margin > 0) - 1
    cramer = np.sqrt(_ratio(chi, np.minimum.outer(used, used)).clip(0, 1))

    found = np.zeros((len(numeric), len(numeric)))
    found[np.ix_(numeric, numeric)] = pearson
    found[np.ix_(~numeric, numeric)] = eta
    found[np.ix_(numeric, ~numeric)] = eta.T
    found[np.ix_(~numeric, ~numeric)] = cramer
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, 0 where `below` is (nearly) 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below > 1e-9)


def pair_distances(
    real: Float[np.ndarray, "n columns"], fake: Float[np.ndarray, "m columns"], layout: Layout
) -> Float[np.ndarray, "columns columns"]:
    """Absolute differences of the associations of columns, 0 to 2 for two numbers, to 1 for others."""
    return np.abs(association(real, layout) - association(fake, layout))


def missing_levels(real: Int64[np.ndarray, " n"], fake: Int64[np.ndarray, " m"], levels: int) -> Int64[np.ndarray, " missing"]:
    """Levels of at least 5 % of real rows of which samples have less than a tenth, and fewer than chance explains."""
    from scipy.stats import binom

    due, found = _counts(real, levels) / len(real), _counts(fake, levels)
    few = (due >= MODE) & (found < MISSING * due * len(fake))
    return np.flatnonzero(few & (binom.cdf(found, len(fake), due) < CHANCE))


def prediction(
    table: Float[np.ndarray, "n features"], target: np.ndarray, test: Float[np.ndarray, "m features"], truth: np.ndarray, *, classes: bool
) -> Float[np.ndarray, " m"]:
    """Of each test row, whether a forest that learned `target` names its class, or its share in R².

    The mean of the shares 1 - m (error)^2 / sum of squared deviations is R².

    References:
        Random Forests (Breiman, 2001), https://doi.org/10.1023/A:1010933404324
        Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs (Esteban, Hyland and Rätsch, 2017;
        training on synthetic, testing on real), https://arxiv.org/abs/1706.02633
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = (RandomForestClassifier if classes else RandomForestRegressor)(min_samples_leaf=2, random_state=0).fit(table, target)
    guess = forest.predict(test)
    if classes:
        return (guess == truth).astype(np.float64)
    return 1 - len(truth) * (guess - truth) ** 2 / ((truth - truth.mean()) ** 2).sum()


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """In the source's units, as samples are written to a file. The trivial models: one Gaussian, and independent columns."""
    if not subject.model.spec.columns:
        return
    codec = cast("TableCodec", subject.train.codec)
    layout = Layout.of(codec)
    shown = [codec.show(x) for x in (subject.real.x, subject.drawn, subject.other.x, subject.gaussian)]
    random = np.random.default_rng(0)
    shuffled = np.stack([random.permutation(column) for column in shown[2].T], 1)
    real, drawn, other, gaussian, independent = (layout.table(table) for table in (*shown, shuffled))
    trivial = {"gaussian": gaussian, "independent columns": independent}
    yield _columns(real, drawn, other, trivial, layout)
    if len(layout.names) > 1:
        yield _pairs(real, drawn, other, trivial, layout)
        yield from _utility(subject, real, drawn, other, trivial, layout)
    yield from _modes(real, drawn, layout)


def _columns(real: np.ndarray, drawn: np.ndarray, other: np.ndarray, trivial: dict[str, np.ndarray], layout: Layout) -> Row:
    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(column_distances(a, b, layout).mean())

    found, spread = column_distances(real, drawn, layout), intervals.distance(distance, real, drawn, other)
    worst = int(found.argmax())
    trivially = {name: distance(real, table) for name, table in trivial.items()}
    note = f"worst of {len(found)}: {layout.names[worst]} ({found[worst]:.3g})"
    return _row("distance of single columns", "Kolmogorov-Smirnov or total variation, mean", found, spread, len(drawn), trivially, note)


def _pairs(real: np.ndarray, drawn: np.ndarray, other: np.ndarray, trivial: dict[str, np.ndarray], layout: Layout) -> Row:
    rows, columns = np.triu_indices(len(layout.names), 1)

    def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return pair_distances(a, b, layout)[rows, columns]

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(differences(a, b).mean())

    found, spread = differences(real, drawn), intervals.distance(distance, real, drawn, other)
    worst = int(found.argmax())
    pair = f"{layout.names[rows[worst]]} and {layout.names[columns[worst]]}"
    trivially = {name: distance(real, table) for name, table in trivial.items()}
    note = f"correlation, correlation ratio, Cramér's V; worst of {len(found)}: {pair} ({found[worst]:.3g})"
    return _row("distance of pairs of columns", "difference of associations, mean", found, spread, len(drawn), trivially, note)


def _row(name: str, unit: str, found: np.ndarray, spread: intervals.Spread, n: int, trivial: dict[str, float], note: str) -> Row:
    """The mean of distances, one a column or a pair."""
    return Row(
        about="samples", name=name, unit=unit, model=float(found.mean()), error=spread.error, draws=spread.draws, n=n,
        floor=spread.floor, baselines=trivial, note=note,
    )  # fmt: skip


def _design(table: np.ndarray, layout: Layout, without: int | None) -> np.ndarray:
    """Features for a predictor: numbers, 0 where empty, and levels; those of one column of the source left out."""
    found = []
    for i, levels in enumerate(layout.levels):
        if layout.sources[i] != without:
            found.append(np.eye(len(levels))[table[:, i].astype(np.int64)] if levels else np.nan_to_num(table[:, i : i + 1]))
    return np.concatenate(found, 1)


def _utility(
    subject: "Subject", real: np.ndarray, drawn: np.ndarray, other: np.ndarray, trivial: dict[str, np.ndarray], layout: Layout
) -> Iterator[Row]:
    """Train on drawn rows, test on held-out ones: the label where the model is asked for one, else one column."""
    tables = {"drawn": drawn, "other": other, **trivial}
    asked = subject.asked
    if asked is not None and isinstance(subject.model.spec.label, Classes):
        what, classes, without, held = "the label", True, None, _array(subject.real.label)
        # Trivial rows carry no label: they are given the asked ones, which they say nothing about.
        targets = {name: _array(asked) for name in tables} | {"other": _array(subject.other.label)}
    else:
        categories = [i for i, kind in enumerate(layout.kinds) if kind == "category"]
        column = (categories or [i for i, kind in enumerate(layout.kinds) if kind == "number"])[-1]
        what, classes, without, held = layout.names[column], bool(categories), layout.sources[column], real[:, column]
        targets = {name: table[:, column] for name, table in tables.items()}
    if len(set(layout.sources) - {without}) == 0:
        return
    usable = ~np.isnan(held)
    test, truth = _design(real, layout, without)[usable], held[usable]
    if len(np.unique(truth)) < 2:
        return
    found = {}
    for name, table in tables.items():
        known = ~np.isnan(targets[name])
        if not known.any():
            return
        found[name] = prediction(_design(table, layout, without)[known], targets[name][known], test, truth, classes=classes)
    value, error, draws = share(found["drawn"]) if classes else mean(found["drawn"])
    yield Row(
        about="samples", name=f"prediction of {what} learned from samples", unit="accuracy" if classes else "R²", model=value, error=error,
        draws=draws, n=len(drawn), floor=float(found["other"].mean()), better="higher",
        baselines={name: float(found[name].mean()) for name in trivial},
        note=f"a random forest, tested on {len(truth):,} held-out rows; real: learned from {len(other):,} training rows; "
        "the interval is over test rows",
    )  # fmt: skip


def _array(label: "Tensor | None") -> np.ndarray:
    """Numbers of classes, NaN where a row has none."""
    assert label is not None
    return np.where(label.cpu().numpy() < 0, np.nan, label.cpu().numpy())


def _modes(real: np.ndarray, drawn: np.ndarray, layout: Layout) -> Iterator[Flag]:
    lacking = [
        f"{layout.names[i]} = {levels[level]!r} ({np.mean(real[:, i] == level):.0%} of real rows)"
        for i, levels in enumerate(layout.levels)
        if levels
        for level in missing_levels(real[:, i].astype(np.int64), drawn[:, i].astype(np.int64), len(levels))
    ]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        yield Flag(
            check="missing modes",
            sentence=f"samples (nearly) never have {', '.join(lacking[:3])}{more}: train longer, or with a model that draws categories",
        )
