"""What a metric finds: numbers with their uncertainty, beside trivial baselines and real data, and flags in one sentence."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

#: Standard errors on either side of a 95 % interval.
NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class Draws:
    """What the uncertainty of a number was computed from; two models' draws give the uncertainty of their difference.

    kind: "examples": one value an example, whose mean is the number, in the order of the held-out part;
          "subsets": one value for each subset of half the examples, drawn without replacement, equal for all models.
    """

    kind: Literal["examples", "subsets"]
    values: np.ndarray

    def error(self) -> float:
        """Standard error of the number.

        A subset of half of n examples has n - n/2 examples less to average over: for a mean its variance, given the n,
        is s^2 (2/n - 1/n) = s^2/n, that of the whole, so that nothing is left to rescale.

        References:
            Large Sample Confidence Regions Based on Subsamples under Minimal Assumptions (Politis and Romano, 1994),
            https://doi.org/10.1214/aos/1176325770
        """
        if len(self.values) < 2:
            return math.nan
        spread = float(np.std(self.values, ddof=1))
        if self.kind == "examples":
            return spread / math.sqrt(len(self.values))
        from scipy.stats import t

        # Few subsets know their spread badly: with Student's quantile in place of the normal one, 1.96 errors are 95 %.
        return spread * float(t.ppf(0.975, len(self.values) - 1)) / NORMAL_95

    def minus(self, other: "Draws") -> "Draws | None":
        """The draws of the difference, None where the two were not drawn alike."""
        if self.kind != other.kind or len(self.values) != len(other.values):
            return None
        return Draws(self.kind, self.values - other.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a model beside the same number of trivial baselines and of real data.

    about: what it speaks of; rows of a report are grouped by it.
    unit: of all its numbers. model: the model's number. error: its standard error, None where it is not known.
    n: examples behind it. baselines: the same number of trivial models.
    better: lower, higher; floor: nearer to real data; neither: a fact.
    floor: the number of real data against real data at the same n.
    features: what examples were compared in. space: numbers of different spaces are never ranked together.
    note: what else must be known to read it. meaning: what it measures, for those who read it first.
    draws: what `error` was computed from, for differences between models.
    """

    about: Literal["likelihood", "forecasts", "reconstruction", "samples", "memorisation", "codes", "labels", "cost"]
    name: str
    unit: str
    model: float
    error: float | None
    n: int
    baselines: dict[str, float] = dataclasses.field(default_factory=dict)
    better: Literal["lower", "higher", "floor", "neither"] = "lower"
    floor: float | None = None
    features: str = ""
    space: str = ""
    note: str = ""
    meaning: str = ""
    draws: Draws | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def value(self) -> str:
        """The model's number with half the width of its 95 % interval."""
        return number(self.model) + (f" ± {half(NORMAL_95 * self.error)}" if self.error is not None else "")

    @property
    def remark(self) -> str:
        """All that must be known to read the row."""
        reading = {"lower": "lower is better", "higher": "higher is better", "floor": "nearer to real data is better", "neither": ""}
        return "; ".join(filter(None, (reading[self.better], self.meaning, self.note, self.features)))

    @property
    def arrow(self) -> str:
        """Which way is better, as a sign."""
        return {"lower": "↓", "higher": "↑", "floor": "≈", "neither": " "}[self.better]

    @property
    def comparable(self) -> tuple[Any, ...]:
        """Rows of several models rank against each other where this is equal (and the data are)."""
        return (self.about, self.name, self.unit, self.n, self.features, self.space)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON-able values, without its draws."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "draws"}
        values["baselines"] = {name: value for name, value in self.baselines.items() if math.isfinite(value)}
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], draws: Draws | None = None) -> "Row":
        """The row that `to_json` wrote."""
        return cls(**{**values, "model": math.nan if values["model"] is None else values["model"]}, draws=draws)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """Something is wrong with a model.

    check: which check fired. sentence: what it saw, and what to try.
    """

    check: Literal["memorisation", "repetition", "missing modes", "blur", "off the data", "collapsed codes", "ignored labels"]
    sentence: str


def number(value: float, digits: int = 4) -> str:
    """Four significant digits, whole above 10,000 and two below 0.0001; without an exponent down to 1e-8."""
    size = abs(value)
    if size >= 1e4 and math.isfinite(value):
        return f"{value:,.0f}"
    if not 1e-8 <= size < math.inf:
        return f"{value:.{digits}g}"
    return np.format_float_positional(value, digits if size >= 1e-4 else min(digits, 2), fractional=False, trim="-")


def half(width: float) -> str:
    """What stands behind ±, in two significant digits."""
    return number(width, 2)


def rounded(value: float, width: float | None) -> str:
    """A number with no more decimals than the second digit of what stands behind its ±."""
    if width is None or not 0 < width < math.inf or not math.isfinite(value):
        return number(value)
    return f"{value:,.{max(0, 1 - math.floor(math.log10(width)))}f}"


def mean(values: "np.ndarray | list[float]") -> tuple[float, float | None, Draws]:
    """Mean over independent examples, its standard error, and the draws behind it."""
    array = np.asarray(values, dtype=np.float64)
    draws = Draws("examples", array)
    return float(array.mean()), draws.error() if len(array) > 1 else None, draws


def share(hits: "np.ndarray") -> tuple[float, float | None, Draws]:
    """As `mean` of hits and misses, whose error near 0 and 1 is not 0.

    The standard error is half a Wilson interval's width over 1.96.

    References:
        Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927),
        https://doi.org/10.1080/01621459.1927.10502953
    """
    value, _, draws = mean(np.asarray(hits, dtype=np.float64))
    n, z2 = len(hits), NORMAL_95**2
    error = math.sqrt(value * (1 - value) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return value, error, draws
