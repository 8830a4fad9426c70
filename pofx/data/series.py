"""Series: one long row of steps in time, cut into windows that follow one another; a noisy oscillator is built in.

The parts are split in time: what is tested comes after all that is trained on. Training windows begin at every step; those of the
other parts do not overlap.

References:
    On relaxation-oscillations (van der Pol, 1926), https://doi.org/10.1080/14786442608564127
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx.core import DataSpec, UsageError, mix
from pofx.data.columns import numbers, pandas
from pofx.data.dataset import Codec, Dataset, Split
from pofx.data.files import whole
from pofx.data.options import Request
from pofx.data.splits import fingerprint
from pofx.data.vectors import standardisation, write_csv

NAMES = {
    "oscillator": "a noisy van der Pol oscillator: one series of 40,000 steps, some 33 to a period",
}
#: Options that a series can use.
OPTIONS = ("kind", "time", "window", "validation", "missing", "seed")
#: Steps of a window by default, and the share of a short series that one is at most.
WINDOW, SHARE = 100, 12
#: Steps of the oscillator; time between them and between those of its integration; stiffness; noise of the velocity (a square root of
#: time) and of what is observed.
STEPS, BETWEEN, FINE, STIFF, DRIVEN, OBSERVED = 40_000, 0.2, 0.04, 1.0, 0.3, 0.05


@dataclasses.dataclass(frozen=True)
class SeriesCodec(Codec):
    """A series: (value - mean) / std of each feature.

    window: steps of an example. names: of the features. whole: whether they are integers in the source.
    time: the column that says when, or None.
    """

    name: ClassVar[str] = "series"
    kind: ClassVar[str] = "sequences"
    window: int
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whole: tuple[bool, ...]
    time: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SeriesCodec":
        """The codec of the fields that `to_json` wrote."""
        return cls(**values)

    def log_jacobian(self) -> float:
        """-sum of log std over all values of an example."""
        return -self.window * float(np.log(self.std).sum())

    def standardised(self, array: Float[np.ndarray, "... features"]) -> Float[Tensor, "... features"]:
        """Values of the source as a model sees them."""
        return torch.from_numpy((array - np.array(self.mean)) / np.array(self.std)).to(torch.float32)

    def show(self, x: Float[Tensor, "... features"]) -> np.ndarray:
        """Steps in the source's units, float64; integers are whole."""
        array = x.detach().cpu().to(torch.float64).numpy() * np.array(self.std) + np.array(self.mean)
        return np.where(np.array(self.whole), array.round(), array)

    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes .npy, .npz (`x`, `names`) or .csv (a line for each step, with the number of its sequence and its own). Raises
        `UsageError` for another ending."""
        path, array = pathlib.Path(path), self.show(x)
        if path.suffix == ".csv":
            n, steps = array.shape[:2]
            columns: list[tuple[str, Any]] = [("sequence", np.repeat(np.arange(n), steps)), ("step", np.tile(np.arange(steps), n))]
            write_csv(path, columns + self.columns(array.reshape(n * steps, -1)))
        elif path.suffix in (".npy", ".npz"):
            with whole(path) as temporary:
                if path.suffix == ".npy":
                    np.save(temporary, array)
                else:
                    np.savez_compressed(temporary, x=array, names=np.array(self.names))
        else:
            raise UsageError(f"sequences are written to .npz, .npy and .csv, not to {path.name}")

    def columns(self, array: Float[np.ndarray, "n features"], suffix: str = "") -> list[tuple[str, np.ndarray]]:
        """Columns of the source's names and types, of steps in its units."""
        values = (column.astype(np.int64) if is_whole else column for column, is_whole in zip(array.T, self.whole, strict=True))
        return [(name + suffix, value) for name, value in zip(self.names, values, strict=True)]


def matches(path: pathlib.Path) -> bool:
    """Files of series are tables and arrays, which say so."""
    return False


def load(request: Request) -> Dataset:
    """The oscillator, x'' = a (1 - x^2) x' - x + noise, observed with noise at even distances; a function of the seed."""
    request.options.only(request.source, "a series", "kind", "window", "validation", "seed")
    random = np.random.default_rng(mix(request.seed, request.source))
    fine = round(BETWEEN / FINE)
    kicks = DRIVEN * FINE**0.5 * random.standard_normal((STEPS, fine))
    x, v, seen = 2.0, 0.0, np.empty((STEPS, 1))
    for step in range(STEPS):
        for kick in kicks[step].tolist():
            x, v = x + FINE * v, v + FINE * (STIFF * (1 - x * x) * v - x) + kick
        seen[step] = x
    seen += OBSERVED * random.standard_normal(seen.shape)
    return dataset(request, seen, ("x",), content=f"{request.source} {request.seed}")


def of_table(request: Request, frame: Any, content: str, notes: list[str]) -> Dataset:
    """The series of a table whose column `--data.time` says when: its other columns of numbers, in the order of time.

    Raises `UsageError` for a time that is missing, no time or number, or there twice, and for empty cells.
    """
    options, codec, source = request.options, request.codec, request.source
    options.only(source, "a series", *OPTIONS)
    types = pandas().api.types
    time = codec.time if isinstance(codec, SeriesCodec) else options.time
    if time not in frame.columns:
        raise UsageError(f"{source} has no column {time!r}: --data.time is one of {', '.join(frame.columns[:20])}")
    if isinstance(codec, SeriesCodec):
        if lacking := [name for name in codec.names if name not in frame.columns]:
            raise UsageError(
                f"{source} lacks the column {lacking[0]!r} that the run learned: its columns are {', '.join(frame.columns[:20])}"
            )
        names = list(codec.names)
    else:
        others = [name for name in frame.columns if name != time]
        names = [name for name in others if types.is_numeric_dtype(frame[name]) and not types.is_bool_dtype(frame[name])]
        if left := [name for name in others if name not in names]:
            notes.append(f"columns that hold no numbers are left out: {', '.join(left[:5])}{' ...' if len(left) > 5 else ''}")
        if not names:
            raise UsageError(f"{source} has no column of numbers besides {time}: give one to model")
    empty = frame[[time, *names]].isna().to_numpy(dtype=bool)
    if empty.any():
        if options.missing != "drop":
            row, column = (int(found[0]) for found in np.nonzero(empty))
            raise UsageError(
                f"row {row + 1:,} of {source} has an empty cell in column {[time, *names][column]}: fill it, or give --data.missing drop to "
                "leave such steps out"
            )
        notes.append(f"{int(empty.any(1).sum()):,} of {len(frame):,} steps have empty cells and are left out")
        frame = frame[~empty.any(1)].reset_index(drop=True)
    times = _times(frame[time], time, source)
    order = np.argsort(times, kind="stable")
    if (order[1:] < order[:-1]).any():
        notes.append(f"the rows are put in the order of {time}")
        frame, times = frame.iloc[order].reset_index(drop=True), times[order]
    apart = np.diff(times)
    if len(apart) and not (apart > apart.dtype.type(0)).all():
        again = times[1:][apart <= apart.dtype.type(0)][0]
        raise UsageError(f"column {time} of {source} has {again} twice: give one series, with one row for each time")
    if (
        len(apart)
        and (apart != apart[0]).any()
        and not np.allclose(apart.astype(np.float64), float(apart[0].astype(np.float64)), rtol=1e-3)
    ):
        notes.append(f"the steps of {time} are not even: a model sees their order and not how far apart they are")
    array = np.stack([numbers(frame[name], name) for name in names], 1)
    integers = tuple(bool(types.is_integer_dtype(frame[name])) for name in names)
    return dataset(request, array, tuple(names), integers=integers, time=time, times=times, content=content, notes=notes)


def _times(values: Any, name: str, source: str) -> np.ndarray:
    """Numbers as they are, anything else as dates."""
    if pandas().api.types.is_numeric_dtype(values):
        return numbers(values, name)
    try:
        found: np.ndarray = pandas().to_datetime(values.astype(str)).to_numpy(dtype="datetime64[ns]")
    except (ValueError, TypeError) as error:
        raise UsageError(f"column {name} of {source} holds neither numbers nor dates ({error}): write dates as 2024-01-31") from error
    return found


def dataset(
    request: Request,
    array: Float[np.ndarray, "time features"],
    names: tuple[str, ...],
    *,
    content: str,
    integers: tuple[bool, ...] | None = None,
    time: str | None = None,
    times: np.ndarray | None = None,
    notes: list[str] | None = None,
) -> Dataset:
    """The data set of the steps of a series, all of them finite: 80 % train, 10 % validate, the last 10 % test.

    Raises `UsageError` for fewer steps than a window, and where they do not fit the run's codec.
    """
    options, codec, notes = request.options, request.codec, [*(notes or [])]
    steps = len(array)
    if options.kind not in (None, "sequences"):
        raise UsageError(f"{request.source} is a series, which cannot be read as {options.kind}: its kind is sequences")
    if codec is not None:
        if not isinstance(codec, SeriesCodec):
            raise UsageError(f"{request.source} is a series, and the run models {codec.name}: give it data of that kind")
        if len(codec.names) != array.shape[1]:
            raise UsageError(f"{request.source} has {array.shape[1]} features a step, and the run models {len(codec.names)}: give as many")
        if options.window not in (None, codec.window):
            raise UsageError(f"the run reads windows of {codec.window} steps, not {options.window}: leave --data.window out")
    window = codec.window if codec is not None else options.window or max(2, min(WINDOW, steps // SHARE))
    pool = steps - steps // 10
    held = steps // 10 if options.validation is None else round(options.validation * pool)
    cuts = {"train": (0, pool - held), "validation": (pool - held, pool), "test": (pool, steps)}
    if codec is not None and cuts["train"][1] < window <= steps:
        # A few recent steps, to go on from.
        cuts = {"train": (0, steps), "validation": (steps, steps), "test": (steps, steps)}
    if cuts["train"][1] < window:
        raise UsageError(
            f"{request.source} has {steps:,} steps, {cuts['train'][1]:,} of them to train on, fewer than a window of {window:,}: give more, or "
            "a smaller --data.window"
        )
    if codec is None:
        mean, std, constant = standardisation(torch.from_numpy(array), torch.arange(cuts["train"][1]))
        notes += constant
        codec = SeriesCodec(window, names, tuple(mean.tolist()), tuple(std.tolist()), integers or (False,) * array.shape[1], time)
    # Every window is a view of the one series; a batch copies its own.
    windows = codec.standardised(array).unfold(0, window, 1).transpose(1, 2)
    parts: dict[str, Split | None] = {}
    for name, (start, stop) in cuts.items():
        rows = torch.arange(start, max(start, stop - window + 1), 1 if name == "train" else window)
        parts[name] = Split(windows, rows=rows, stride=window if name == "train" else None) if len(rows) else None
        if not len(rows) and stop > start:
            notes.append(f"the {stop - start:,} steps of the {name} part are fewer than a window of {window:,}, so that there is none")
    assert parts["train"] is not None
    return Dataset(
        source=request.source,
        spec=DataSpec("sequences", (window, array.shape[1]), size=len(parts["train"])),
        codec=codec,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        fingerprint=fingerprint(content, options),
        options=options.to_json(),
        notes=tuple(notes),
        times=times,
    )
