"""The columns of a table as one vector: numbers standardised, categories one-hot, empty cells flagged."""

import dataclasses
import importlib
import json
import math
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pofx.core import Attributes, Classes, Column, UsageError
from pofx.data.dataset import Codec
from pofx.data.files import whole
from pofx.data.labels import Kept, kept, restore


def pandas() -> ModuleType:
    """The library that reads and writes tables. Raises `UsageError` where it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise UsageError('tables need pandas and pyarrow: pip install "pofx[tables]"') from error


@dataclasses.dataclass(frozen=True)
class Field:
    """One column of the source.

    dtype: of pandas. mean, std, low, high: of its numbers on the training rows.
    levels: of a category; None stands for an empty cell. missing: whether a 0/1 feature says that the number is empty.
    """

    name: str
    kind: Literal["number", "integer", "category"]
    dtype: str
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 0.0
    levels: tuple[str | None, ...] = ()
    missing: bool = False

    @property
    def width(self) -> int:
        """Features that it takes."""
        return len(self.levels) if self.kind == "category" else 1 + self.missing

    def encode(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, width) of a pandas column, and the rows whose cell it has no place for: an unseen category, or
        an empty cell where training had none."""
        if self.kind == "category":
            index = {level: i for i, level in enumerate(self.levels)}
            place = np.array([index.get(cell, -1) for cell in cells(values)], dtype=np.int64)
            features = np.zeros((len(place), self.width), dtype=np.float32)
            features[np.flatnonzero(place >= 0), place[place >= 0]] = 1
            return features, place < 0
        found = numbers(values, self.name)
        empty = np.isnan(found)
        scaled = np.where(empty, 0.0, (found - self.mean) / self.std)
        if not self.missing:
            return scaled[:, None], empty
        return np.stack([scaled, empty], 1), np.zeros(len(found), dtype=bool)

    def decode(self, features: Float[Tensor, "n width"]) -> np.ndarray:
        """Numbers in the source's units, integers whole and within the training rows' range; numbers of the levels for
        a category; NaN for an empty cell."""
        if self.kind == "category":
            place = features.argmax(1).numpy()
            return np.array([math.nan if level is None else i for i, level in enumerate(self.levels)])[place]
        found = features[:, 0].to(torch.float64).numpy() * self.std + self.mean
        # float32 features carry some seven digits of a deviation; the rest is noise.
        found = found.round(max(0, 6 - math.floor(math.log10(self.std))))
        if self.kind == "integer":
            found = found.round().clip(self.low, self.high)
        return np.where(features[:, 1].numpy() > 0.5, math.nan, found) if self.missing else found


def cells(values: Any) -> list[str | None]:
    """The cells of a pandas column as text, None where empty."""
    empty = values.isna().to_numpy(dtype=bool)
    return [None if gone else str(cell) for gone, cell in zip(empty, values, strict=True)]


def numbers(values: Any, name: str) -> np.ndarray:
    """The cells of a pandas column as float64, NaN where empty. Raises `UsageError` for text and infinities."""
    try:
        found: np.ndarray = values.to_numpy(dtype=np.float64, na_value=math.nan)
    except (ValueError, TypeError) as error:
        raise UsageError(f"column {name} should hold numbers ({error}): correct or remove the cells") from error
    if np.isinf(found).any():
        raise UsageError(f"column {name} has an infinite number: correct or remove it")
    return found


@dataclasses.dataclass(frozen=True)
class TableCodec(Codec):
    """A table: one float vector a row.

    fields: columns in the source's order. label_columns, label_places: names, and how many fields stand before each.
    """

    name: ClassVar[str] = "table"
    fields: tuple[Field, ...]
    label: Kept = None
    label_columns: tuple[str, ...] = ()
    label_places: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TableCodec":
        """The codec of the fields that `to_json` wrote."""
        fields = tuple(Field(**{**field, "levels": tuple(field["levels"])}) for field in values["fields"])
        columns, places = tuple(values["label_columns"]), tuple(values["label_places"])
        return cls(**{**values, "fields": fields, "label_columns": columns, "label_places": places})

    def columns(self) -> tuple[Column, ...]:
        """Where each column stands in the vector."""
        found, start = [], 0
        for field in self.fields:
            stop = start + (field.width if field.kind == "category" else 1)
            found.append(Column(field.name, field.kind, start, stop))
            if field.missing:
                found.append(Column(field.name, "missing", stop, stop + 1))
            start += field.width
        return tuple(found)

    def log_jacobian(self) -> float:
        """-sum of log std over the numbers and integers of a row."""
        return -sum(math.log(field.std) for field in self.fields if field.kind != "category")

    def _decode(self, x: Float[Tensor, "n features"]) -> list[np.ndarray]:
        x = x.detach().cpu().to(torch.float32)
        parts = x.split([field.width for field in self.fields], dim=1)
        return [field.decode(part) for field, part in zip(self.fields, parts, strict=True)]

    def show(self, x: Float[Tensor, "n features"]) -> np.ndarray:
        """Rows in the source's units (n, columns), float64; a category is the number of its level, an empty cell NaN."""
        return np.stack(self._decode(x), 1)

    def cells(self, x: Float[Tensor, "n features"]) -> tuple[list[str], list[list[str]]]:
        """Names of the columns, and each row's levels and numbers (four digits, integers whole); an empty cell is empty."""
        columns = [
            ["" if math.isnan(v) else _cell(field, v) for v in found.tolist()]
            for field, found in zip(self.fields, self._decode(x), strict=True)
        ]  # fmt: skip
        return [field.name for field in self.fields], [list(row) for row in zip(*columns, strict=True)]

    def frame(self, x: Float[Tensor, "n features"], label: Tensor | None = None) -> Any:
        """Rows as a pandas frame with the source's columns, order and types."""
        pd = pandas()
        columns: list[tuple[str, Any]] = []
        for field, found in zip(self.fields, self._decode(x), strict=True):
            if field.kind == "category":
                names = [None if math.isnan(place) else field.levels[int(place)] for place in found]
                columns.append((field.name, _typed(pd, names, field.dtype)))
            else:
                columns.append((field.name, pd.array(np.where(np.isnan(found), None, found), dtype=field.dtype)))
        meaning = kept(self.label)
        if label is not None and meaning is not None and self.label_columns:
            values = restore(label, meaning).reshape(len(label), -1).T
            for i, (name, place, of_column) in enumerate(zip(self.label_columns, self.label_places, values, strict=True)):
                if isinstance(meaning, Classes):
                    series = pd.Series(of_column).convert_dtypes().mask(label.cpu().numpy() < 0)
                elif isinstance(meaning, Attributes):
                    series = pd.Series(of_column, dtype="Int64").mask(of_column < 0)
                else:
                    series = pd.Series(of_column, dtype="Float64")
                # The label's columns before this one have moved its place.
                columns.insert(place + i, (name, series.array))
        return pd.DataFrame(dict(columns))

    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes .csv, .jsonl or .parquet with the source's columns, or .npz of `x` as `show` gives it, `columns`,
        `levels` (JSON) and `label`. Raises `UsageError` for another ending."""
        path = pathlib.Path(path)
        if path.suffix not in (".csv", ".jsonl", ".parquet", ".npz"):
            raise UsageError(f"tables are written to .csv, .jsonl, .parquet or .npz, not to {path.name}")
        with whole(path) as temporary:
            if path.suffix == ".npz":
                levels = {field.name: field.levels for field in self.fields if field.kind == "category"}
                meaning = kept(self.label)
                labels = {} if label is None or meaning is None else {"label": restore(label, meaning)}
                names = np.array([field.name for field in self.fields])
                np.savez_compressed(temporary, x=self.show(x), columns=names, levels=np.array(json.dumps(levels)), **labels)
            elif path.suffix == ".csv":
                self.frame(x, label).to_csv(temporary, index=False)
            elif path.suffix == ".jsonl":
                frame = self.frame(x, label).astype(object)
                records = frame.where(frame.notna(), None).to_dict("records")
                temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records), encoding="utf-8")
            else:
                self.frame(x, label).to_parquet(temporary, index=False)


def _cell(field: Field, value: float) -> str:
    if field.kind == "category":
        return str(field.levels[int(value)])
    return f"{value:.0f}" if field.kind == "integer" else np.format_float_positional(value, 5, fractional=False, trim="-")


def _typed(pd: Any, names: list[str | None], dtype: str) -> Any:
    """Level names as the source's type."""
    if dtype == "boolean":
        return pd.array([None if name is None else name == "True" for name in names], dtype=dtype)
    return pd.array(names, dtype="string")
