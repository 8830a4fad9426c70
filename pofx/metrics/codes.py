"""What codes are worth: units that say something about x, linear probes, and whether neighbours share a class.

Classes are those of `subject.train`; codes of a conditional model are made without labels, which a probe would read off.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pofx import examples, intervals
from pofx.core import Batch, Classes, Decodes, Encodes, mix
from pofx.features import training
from pofx.findings import Draws, Flag, Row, mean, share
from pofx.metrics.nearest import neighbours
from pofx.nn.collapse import ACTIVE, COLLAPSED, TELLING

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Encodes,)
kinds = frozenset({"images", "vectors"})

#: Codes of the prior that its variance is taken over.
PRIOR = 10_000
#: Labels of probes, besides all; how many disjoint sets of them; labels of the largest probe, and with `full`.
LABELS, SETS, MOST, ALL = (100, 1000), 5, 10_000, 60_000
#: Steps of a probe's optimizer, of which badly conditioned codes would take thousands for digits that nobody reads.
STEPS = 200
NEIGHBOURS = 10
#: Directions in which codes are compared with a normal distribution.
DIRECTIONS = 256


class Probe(NamedTuple):
    """accuracy: mean over held-out examples and sets of labels. error: its standard error, from both. draws: hits of each
    held-out example, a mean over the sets."""

    accuracy: float
    error: float | None
    draws: Draws


def active_units(
    codes: Float[np.ndarray, "n dimensions"], prior: Float[np.ndarray, " dimensions"] | None = None
) -> Bool[np.ndarray, " dimensions"]:
    """Which units say something about x: Var_x[code] is more than 0.01 prior variances, and more than rounding.

    With a prior N(0, I) this is Burda's rule. Codes of an autoencoder have a scale of their own, which the prior that is
    fitted to them shares.

    Arguments:
        codes: of different examples; for a posterior, its means.
        prior: variance of each unit under the prior; None asks only that a code is not constant.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), section 5.2, https://arxiv.org/abs/1509.00519
    """
    spread, centre = codes.std(0), np.abs(codes.mean(0))
    # Networks compute in single precision, or less.
    varies = spread > 1e-5 * np.maximum(centre, 1e-5)
    return varies if prior is None else varies & (spread**2 > ACTIVE * prior)


def linear_probe(
    train: Float[np.ndarray, "n dimensions"],
    label: Int64[np.ndarray, " n"],
    held: Float[np.ndarray, "m dimensions"],
    held_label: Int64[np.ndarray, " m"],
    count: int,
) -> Probe:
    """Accuracy on held-out codes of logistic regression fitted to `count` standardised training codes with their labels.

    It is the mean over up to 5 disjoint sets of `count` rows, in the order given. L2 penalty 1/2 |w|^2, at most 200 steps
    of L-BFGS. Raises `ValueError` where there are not so many rows.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not 1 <= count <= len(train):
        raise ValueError(f"a probe of {count} labels needs as many training codes, not {len(train)}")
    hits = []
    for start in range(0, min(SETS, len(train) // count) * count, count):
        x, y = train[start : start + count], label[start : start + count]
        if (y == y[0]).all():
            # One class is all that this probe has heard of.
            hits.append(held_label == y[0])
            continue
        with warnings.catch_warnings():
            # Stopping early is a part of the definition above.
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS)).fit(x, y)
        hits.append(probe.predict(held) == held_label)
    if len(hits) == 1:
        return Probe(*share(hits[0]))
    value, error, draws = _rate(np.mean(hits, 0))
    between = np.mean(hits, 1).std(ddof=1) / np.sqrt(len(hits))
    return Probe(value, None if error is None else float(np.hypot(error, between)), draws)


def _rate(values: np.ndarray) -> tuple[float, float | None, Draws]:
    """As `mean` of values in [0, 1]; where all are equal their spread says too little, and it is as `share`."""
    return mean(values) if values.std() > 0 else share(values)


def neighbour_purity(
    codes: Float[np.ndarray, "n dimensions"], label: Int64[np.ndarray, " n"], k: int = NEIGHBOURS
) -> Float[np.ndarray, " n"]:
    """For each code the share of its k nearest others (Euclidean) that have its class.

    Raises `ValueError` where there are not k others.
    """
    if len(codes) <= k:
        raise ValueError(f"{k} neighbours of a code need at least {k + 1} codes, not {len(codes)}")
    _, nearest = neighbours(codes, codes, k, skip_self=True)
    return (label[nearest] == label[:, None]).mean(1)


def standard_normal_kl(codes: Float[np.ndarray, "n dimensions"]) -> float:
    """KL(N(m, S) || N(0, I)) = 1/2 (tr S + m^T m - d - log det S) in nats, of the Gaussian with the codes' moments.

    Infinite where the codes lie in a plane of fewer dimensions.
    """
    mean, covariance = codes.mean(0, dtype=np.float64), np.atleast_2d(np.cov(codes.T.astype(np.float64)))
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return float("inf")
    return float(0.5 * (np.trace(covariance) + mean @ mean - len(mean) - log_det))


def sliced_distance(codes: Float[np.ndarray, "n dimensions"], directions: int = DIRECTIONS) -> float:
    """Sliced Wasserstein distance of the codes to N(0, I), in standard deviations of the latter: over directions u,

        sqrt(E_u W_2^2(u^T z, N(0, 1)))        with the exact quantiles of N(0, 1)

    It is 0 for equal distributions alone, and some 1 / sqrt(n) for draws.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), https://doi.org/10.1007/s10851-014-0506-3
    """
    from scipy.stats import norm

    n, d = codes.shape
    random = np.random.default_rng(mix(0, "directions"))
    along = random.standard_normal((d, directions))
    along /= np.linalg.norm(along, axis=0)
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    return float(np.sqrt(np.square(np.sort(codes @ along, 0) - quantiles[:, None]).mean()))


def cells(n: int) -> int:
    """Cells along each side of the grid in which emptiness of n codes is counted: 6 n^(1/6), as Scott's rule narrows
    kernels in the plane, so that in few codes chance leaves no more gaps than in many."""
    return round(6 * n ** (1 / 6))


def near(place: Float[np.ndarray, "n 2"], points: Float[np.ndarray, "m 2"]) -> Bool[np.ndarray, " m"]:
    """Whether a place lies in the cell of each point or in one of the eight around it, in a grid over the range of the places."""
    low, count = place.min(0), cells(len(place))
    wide = np.maximum(np.ptp(place, 0), np.finfo(float).tiny) / count

    def cell(rows: np.ndarray) -> np.ndarray:
        # Two more cells at each side: what lies further out is in the outermost, which is near to none.
        return (np.floor((rows - low) / wide).clip(-2, count + 1) + 2).astype(int)

    filled = np.zeros((count + 6, count + 6), dtype=bool)
    filled[tuple(1 + np.minimum(cell(place), count + 1).T)] = True
    around = np.lib.stride_tricks.sliding_window_view(filled, (3, 3)).any((2, 3))
    return around[tuple(cell(points).T)]


def empty_area(place: Float[np.ndarray, "n 2"]) -> float:
    """Share of the area within the convex hull of places that is empty: of the cells of the grid of `near` whose middle is
    in the hull, those without a place in them or in one of the eight around them.

    NaN for places on a line.
    """
    from matplotlib.path import Path
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = Path(place[ConvexHull(place).vertices])
    except QhullError:
        return float("nan")
    count = cells(len(place))
    middles = (np.stack(np.indices((count, count)), -1).reshape(-1, 2) + 0.5) / count * np.ptp(place, 0) + place.min(0)
    return float(1 - near(place, middles[hull.contains_points(middles)]).mean())


def encoded(subject: "Subject", x: Tensor) -> Float[np.ndarray, "n dimensions"]:
    """Codes of examples without their labels, in float64."""
    parts = subject.track(x.split(examples.PART), -(-len(x) // examples.PART))
    return torch.cat([examples.encode(subject.model, Batch(part)).flatten(1) for part in parts]).numpy().astype(np.float64)


def principal(subject: "Subject", dimensions: int) -> Callable[[Tensor], Float[np.ndarray, "n dimensions"]]:
    """The trivial encoder: leading principal components of the training part, at most as many as values allow."""
    from sklearn.decomposition import PCA

    rows = _flat(training(subject.train, examples=5000).x)
    pca = PCA(min(dimensions, rows.shape[1], len(rows) - 1), random_state=0).fit(rows)
    return lambda x: pca.transform(_flat(x)).astype(np.float64)


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).cpu().numpy()


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """Active units of held-out codes; probes and neighbours where the data have classes, beside values and components."""
    held = subject.real
    codes = encoded(subject, held.x)
    prior = None
    if Decodes in subject.model.capabilities:
        prior = examples.prior_codes(subject.model, PRIOR, seed=mix(0, "prior of codes")).flatten(1).to(torch.float64).var(0).numpy()
    active = active_units(codes, prior)
    draws = Draws(
        "subsets",
        np.array([float(active_units(codes[i], prior).sum()) for i, _ in intervals.halves(len(codes), len(codes), intervals.ROUNDS)]),
    )
    yield Row(
        about="codes",
        name="active units",
        unit=f"of {len(active)}",
        model=float(active.sum()),
        error=draws.error(),
        draws=draws,
        n=len(codes),
        better="neither",
        note="a unit whose code varies over x by more than " + ("0.01 of its prior variance" if prior is not None else "rounding"),
    )
    if len(codes) >= TELLING and active.sum() < max(1, COLLAPSED * len(active)):
        yield Flag(
            check="collapsed codes",
            sentence=f"{active.sum()} of {len(active)} units of the code vary with x, so that a code says next to nothing about it: "
            "weaken the divergence or the decoder, warm the divergence up, or take fewer units",
        )
    meaning = subject.dataset.spec.label
    if isinstance(meaning, Classes) and meaning == subject.train.spec.label and len(meaning.names) > 1 and held.label is not None:
        known = (held.label >= 0).cpu()
        yield from _labelled(subject, held.x[known], held.label[known].cpu().numpy(), codes[known.numpy()])


def _labelled(subject: "Subject", held_x: Tensor, held_label: np.ndarray, codes: np.ndarray) -> Iterator[Row]:
    """Rows about held-out examples with a class, whose codes are given."""
    train_x, label = _training(subject)
    if len(held_label) <= NEIGHBOURS or not len(label):
        return
    components = principal(subject, codes.shape[1])
    # What is compared: the model's codes first, then trivial ones.
    spaces = {
        "model": (encoded(subject, train_x), codes),
        "raw values": (_flat(train_x), _flat(held_x)),
        f"{codes.shape[1]} principal components": (components(train_x), components(held_x)),
    }
    blind = "; made without labels" if getattr(subject.model.config, "conditional", False) else ""
    for count in sorted({*(few for few in LABELS if few < len(label)), len(label)}):
        probes = {name: linear_probe(train, label, held, held_label, count) for name, (train, held) in spaces.items()}
        mine = probes.pop("model")
        sets = min(SETS, len(label) // count)
        yield Row(
            about="codes",
            name=f"linear probe, {count:,} labels",
            unit="share of classes named right",
            model=mine.accuracy,
            error=mine.error,
            draws=mine.draws,
            n=len(held_label),
            baselines={name: probe.accuracy for name, probe in probes.items()},
            better="higher",
            note="logistic regression on standardised codes" + (f", mean over {sets} sets of labels" if sets > 1 else "") + blind,
        )
    value, error, draws = _rate(neighbour_purity(spaces["model"][1], held_label))
    yield Row(
        about="codes",
        name="neighbours of the same class",
        unit=f"share of the {NEIGHBOURS} nearest",
        model=value,
        error=error,
        draws=draws,
        n=len(held_label),
        baselines={name: float(neighbour_purity(held, held_label).mean()) for name, (_, held) in spaces.items() if name != "model"},
        better="higher",
        note=f"Euclidean, among {len(held_label):,} held-out codes{blind}",
    )


def _training(subject: "Subject") -> tuple[Tensor, np.ndarray]:
    """Training examples that have a class, in an order that no sorted file decides, and their classes."""
    split, limit = subject.train.train, ALL if subject.full else MOST
    x, label, count = [], [], 0
    # Few of many examples may have a class.
    for part in split.positions(shuffle=3).split(512):
        batch = split.batch(part)
        known = batch.label >= 0  # type: ignore[operator]
        x.append(batch.x[known])
        label.append(batch.label[known])  # type: ignore[index]
        count += len(x[-1])
        if count >= limit:
            break
    return torch.cat(x)[:limit], torch.cat(label)[:limit].numpy()
