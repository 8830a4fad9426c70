"""Whether each unit of a code stands for one factor of variation: mutual information gap, DCI, SAP, FactorVAE score.

All take codes and the factor values that their examples were drawn from. Definitions and sizes are those of a study of
12,000 models, so that numbers can be read beside published ones where data are the same.

References:
    Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al., 2019),
    https://arxiv.org/abs/1811.12359
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64

from pofx import intervals
from pofx.core import Encodes, mix
from pofx.findings import Draws, Row, mean
from pofx.metrics.codes import encoded, principal

if TYPE_CHECKING:
    from pofx.data.dataset import Factors
    from pofx.subject import Subject

needs = (Encodes,)
kinds = frozenset({"images"})

#: The protocol: rows to fit to, and rows to score on.
TRAIN, TEST = 10_000, 5000
#: Without `full`: the same, and the same for DCI, which grows a hundred trees for every value of every factor.
FEW, FEW_DCI = (2000, 1000), (300, 1000)
#: Histogram bins of a code (MIG); standard deviation of a code that is left out (FactorVAE).
BINS, PRUNED = 20, 0.05
#: Refits behind the errors of SAP (to halves) and, with `full`, of DCI (to disjoint parts).
REFITS, PARTS = 6, 4

Codes = Float[np.ndarray, "n dimensions"]
Values = Int[np.ndarray, "n factors"]


class DCI(NamedTuple):
    """disentanglement: 1 where each unit matters to one factor. completeness: 1 where one unit tells each factor.
    informativeness: how often trees name a factor's value right on held-out rows, averaged over factors."""

    disentanglement: float
    completeness: float
    informativeness: float


class _Tables(NamedTuple):
    """Codes and factors to fit to, and those to score on."""

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray

    def some(self, i: np.ndarray, j: np.ndarray | slice) -> "_Tables":
        return _Tables(self.x[i], self.y[i], self.held_x[j], self.held_y[j])


def _checked(codes: Codes, factors: Values) -> tuple[np.ndarray, np.ndarray]:
    """Codes in float64, and factor values from 0 on."""
    x, y = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or y.dtype.kind not in "iu":
        raise ValueError(f"codes (n, dimensions) and integer factors (n, factors) are needed, not {x.shape} and {y.dtype} {y.shape}")
    if x.shape[1] < 2 or y.shape[1] < 2:
        raise ValueError(f"at least two dimensions and two factors are needed to tell them apart, not {x.shape[1]} and {y.shape[1]}")
    if not np.isfinite(x).all():
        raise ValueError("some codes are not finite")
    values = [np.unique(column, return_inverse=True) for column in y.T]
    if constant := [j for j, (different, _) in enumerate(values) if len(different) < 2]:
        raise ValueError(f"factor {constant[0]} never changes: leave it out")
    return x, np.stack([place for _, place in values], 1)


def _divided(codes: Codes, factors: Values, train: int, test: int) -> _Tables:
    """The first `train` rows and the `test` rows after them; in the same proportion where there are fewer."""
    x, y = _checked(codes, factors)
    if len(x) < train + test:
        train = len(x) * train // (train + test)
    if not 2 <= train < len(x):
        raise ValueError(f"{len(x)} rows are too few to fit to some and score on others")
    return _Tables(x[:train], y[:train], x[train : train + test], y[train : train + test])


def mig(codes: Codes, factors: Values) -> float:
    """Mutual information gap: mean over factors v of (I(c1; v) - I(c2; v)) / H(v), c1 and c2 the units that know most of v.

    Each unit is put into 20 histogram bins of equal width. 1: one unit tells all of each factor and no other anything;
    0: for every factor two units know as much. Raises `ValueError` for fewer than two dimensions or factors, and for a
    factor that never changes.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), https://arxiv.org/abs/1802.04942
    """
    from scipy.stats import entropy

    x, y = _checked(codes, factors)
    dimensions = x.shape[1]
    binned = np.stack([np.digitize(unit, np.histogram_bin_edges(unit, BINS)[:-1]) - 1 for unit in x.T], 1)
    gaps = []
    for value in y.T:
        size = int(value.max()) + 1
        cells = (np.arange(dimensions) * BINS + binned) * size + value[:, None]
        joint = np.bincount(cells.ravel(), minlength=dimensions * BINS * size).reshape(dimensions, BINS, size)
        uncertainty = entropy(np.bincount(value))
        information = entropy(joint.sum(2), axis=1) + uncertainty - entropy(joint.reshape(dimensions, -1), axis=1)
        second, first = np.sort(information)[-2:]
        gaps.append((first - second) / uncertainty)
    return float(np.mean(gaps))


def _trees(tables: _Tables, seed: int) -> tuple[Float[np.ndarray, "dimensions factors"], Float[np.ndarray, " n"]]:
    """How much each unit matters to each factor, and the share of factors named right of each held-out row."""
    from sklearn.ensemble import GradientBoostingClassifier

    forests = [GradientBoostingClassifier(random_state=seed).fit(tables.x, value) for value in tables.y.T]
    importance = np.stack([np.abs(forest.feature_importances_) for forest in forests], 1)
    hits = [forest.predict(tables.held_x) == value for forest, value in zip(forests, tables.held_y.T, strict=True)]
    return importance, np.mean(hits, 0)


def _concentration(importance: np.ndarray) -> float:
    """Mean over rows, weighed by their sums, of 1 - H(row) / log(columns)."""
    from scipy.stats import entropy

    # Where no unit matters at all, all matter alike.
    importance = importance if importance.sum() else np.ones_like(importance)
    certainty = 1 - entropy(importance + 1e-11, base=importance.shape[1], axis=1)
    return float((certainty * importance.sum(1)).sum() / importance.sum())


def dci(codes: Codes, factors: Values, *, train: int = TRAIN, test: int = TEST, seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness of gradient-boosted trees that name the factors' values.

    Arguments:
        train, test: rows that trees are fitted to, and that follow and are scored; 2 : 1 of all where there are fewer.
    Raises `ValueError` as `mig`.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and Williams, 2018),
        https://openreview.net/forum?id=By-7dz-AZ
    """
    importance, hits = _trees(_divided(codes, factors, train, test), seed)
    return DCI(_concentration(importance), _concentration(importance.T), float(hits.mean()))


def sap(codes: Codes, factors: Values, *, train: int = TRAIN, test: int = TEST) -> float:
    """Separated attribute predictability: mean over factors of the gap between the two best units' accuracies.

    Accuracies are those of linear support vector machines (C = 0.01, balanced classes) that see one unit as it is, so
    that they depend on its scale. Arguments and errors as of `dci`.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848
    """
    return _sap(_divided(codes, factors, train, test))


def _sap(tables: _Tables) -> float:
    from sklearn.svm import LinearSVC

    def accuracy(unit: int, factor: int) -> float:
        machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0).fit(tables.x[:, unit, None], tables.y[:, factor])
        return float(machine.score(tables.held_x[:, unit, None], tables.held_y[:, factor]))

    found = np.array([[accuracy(i, j) for j in range(tables.y.shape[1])] for i in range(tables.x.shape[1])])
    second, first = np.sort(found, 0)[-2:]
    return float((first - second).mean())


def factor_vae_score(codes: Codes, factors: Values, *, train: int = TRAIN, test: int = TEST, batch: int = 64, seed: int = 0) -> float:
    """How often the unit that varies least while one factor is held fixed tells which factor it is.

    A vote: of `batch` rows that share the value of one factor, the unit whose variance over them, divided by its variance
    over all, is the least. Units with a standard deviation below 0.05 have no vote. Units are named after the factor for
    which they win most of `train` votes among the first rows; the score is the share of right names in `test` votes
    among the others. Rows are drawn from the table with replacement, as from the factors themselves; 0 where no unit
    is left. Raises `ValueError` as `mig`.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983
    """
    return _majority(_divided(codes, factors, train, test), train, test, batch, seed)


def _majority(tables: _Tables, train: int, test: int, batch: int, seed: int) -> float:
    variance = tables.x.var(0, ddof=1)
    voting = np.sqrt(variance) >= PRUNED
    if not voting.any():
        return 0.0
    random = np.random.default_rng(mix(seed, "votes"))
    scale = np.sqrt(variance[voting])
    named = _votes(tables.x[:, voting] / scale, tables.y, train, batch, random).argmax(0)
    votes = _votes(tables.held_x[:, voting] / scale, tables.held_y, test, batch, random)
    return float(votes[named, np.arange(len(named))].sum() / votes.sum())


def _votes(x: np.ndarray, y: np.ndarray, count: int, batch: int, random: np.random.Generator) -> Int64[np.ndarray, "factors dimensions"]:
    """How many votes each unit won with each factor held fixed, at the value of a random row."""
    votes = np.zeros((y.shape[1], x.shape[1]), dtype=np.int64)
    for factor, asked in enumerate(random.multinomial(count, np.full(y.shape[1], 1 / y.shape[1]))):
        order = np.argsort(y[:, factor], kind="stable")
        ordered = y[order, factor]
        value = random.choice(ordered, asked)
        first, last = np.searchsorted(ordered, value), np.searchsorted(ordered, value, side="right")
        for part in np.array_split(np.arange(asked), max(1, asked // 256)):
            rows = order[random.integers(first[part, None], last[part, None], (len(part), batch))]
            votes[factor] += np.bincount(x[rows].var(1).argmin(1), minlength=x.shape[1])
    return votes


def measure(subject: "Subject") -> Iterator[Row]:
    """The four scores on images that training did not see, each combination of factor values as likely as any other."""
    factors = subject.dataset.factors
    if factors is None:
        return
    train, test = (TRAIN, TEST) if subject.full else FEW
    values = _unseen(subject, factors, train + test)
    shown = factors.render(values)
    codes = encoded(subject, shown)
    if codes.shape[1] < 2:
        # One unit cannot keep factors apart.
        return
    spaces = {
        "principal components": principal(subject, codes.shape[1])(shown),
        "random codes": np.random.default_rng(0).standard_normal(codes.shape),
    }
    tables = _divided(codes, values, train, test)
    trivial = {name: _divided(other, values, train, test) for name, other in spaces.items()}
    halves = [tables.some(i, j) for i, j in intervals.halves(len(tables.x), len(tables.held_x), intervals.FEW_ROUNDS)]

    def row(name: str, score: Callable[[_Tables], float], rounds: int, n: int, note: str) -> Row:
        draws = Draws("subsets", np.array([score(half) for half in halves[:rounds]]))
        return _row(name, score(tables), {other: score(of) for other, of in trivial.items()}, draws.error(), draws, n, note)

    yield row("mutual information gap (MIG)", lambda of: mig(of.x, of.y), len(halves), len(tables.x), f"{BINS} bins")
    votes = f"{TRAIN:,} votes to name units and {TEST:,} to test"
    yield row("FactorVAE score", lambda of: _majority(of, TRAIN, TEST, 64, 0), len(halves), len(codes), votes)
    yield row("SAP score", _sap, REFITS, len(codes), "depends on the scale of codes")
    yield from _dci_rows(subject, values, codes, spaces["principal components"])


def _row(
    name: str, value: float, trivial: dict[str, float], error: float | None, draws: Draws | None, n: int, note: str, unit: str = "0 to 1"
) -> Row:
    return Row(
        about="codes", name=name, unit=unit, model=value, error=error, draws=draws, n=n, baselines=trivial, better="higher",
        note=f"images that training did not see; {note}",
    )  # fmt: skip


def _unseen(subject: "Subject", factors: "Factors", n: int) -> Int64[np.ndarray, "n factors"]:
    """n different combinations of factor values, none of an image that the model was trained on."""
    trained = subject.train.factors
    seen = [] if trained is None else np.ravel_multi_index(tuple(trained.train.T), factors.sizes)
    unseen = np.setdiff1d(np.arange(math.prod(factors.sizes)), seen)
    chosen = np.random.default_rng(mix(0, "disentanglement")).permutation(unseen)[:n]
    return np.stack(np.unravel_index(chosen, factors.sizes), 1)


def _dci_rows(subject: "Subject", values: np.ndarray, codes: np.ndarray, components: np.ndarray) -> Iterator[Row]:
    """The three numbers of DCI; errors of the first two take refits, which only `full` has the time for."""
    train, test = (TRAIN, TEST) if subject.full else FEW_DCI
    tables = _divided(codes, values, train, test)
    importance, hits = _trees(tables, 0)
    trivial = dci(components, values, train=train, test=test)
    parts = np.array_split(np.arange(len(tables.x)), PARTS) if subject.full else []
    refits = [_trees(tables.some(part, slice(1)), 0)[0] for part in parts]
    n = len(tables.x) + len(hits)
    named = f"boosted trees on {len(tables.x):,}"
    for name, matrix, parts_of, of_components in (
        ("DCI disentanglement", importance, refits, trivial.disentanglement),
        ("DCI completeness", importance.T, [part.T for part in refits], trivial.completeness),
    ):
        draws = _of_parts([_concentration(part) for part in parts_of]) if refits else None
        error = None if draws is None else draws.error()
        note = named + ("" if refits else "; error with --full")
        yield _row(name, _concentration(matrix), {"principal components": of_components}, error, draws, n, note)
    value, error, draws = mean(hits)
    unit = "share of factors named right"
    yield _row("DCI informativeness", value, {"principal components": trivial.informativeness}, error, draws, n, named, unit)


def _of_parts(values: list[float]) -> Draws:
    """Draws from values of k disjoint parts: a part varies k times as much as the whole, in variance."""
    found = np.array(values)
    return Draws("subsets", found.mean() + (found - found.mean()) / math.sqrt(len(found)))
