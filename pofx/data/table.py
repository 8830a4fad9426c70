"""Tables: .csv and .parquet files, one row an example."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import torch

from pofx.core import UsageError, Values
from pofx.data import series
from pofx.data.columns import Field, TableCodec, cells, numbers, pandas
from pofx.data.dataset import Dataset
from pofx.data.files import digest
from pofx.data.labels import CLASSES, Labels, chosen_columns, from_array, from_names, keep
from pofx.data.options import Request
from pofx.data.splits import assemble, divide, read_labels
from pofx.data.vectors import standardisation

NAMES: dict[str, str] = {}
READS = ".csv and .parquet tables"
#: A column of text with more different cells than this is taken for an identifier.
LEVELS = 256
#: Columns of a kind that are named in the sentence on how they were read.
TOLD = 8


def matches(path: pathlib.Path) -> bool:
    """Whether the file's name says that it is a table."""
    return path.suffix.lower() in (".csv", ".parquet") and path.is_file()


def load(request: Request) -> Dataset:
    """The data set of a table. Raises `UsageError` for a file that cannot be read, a label column that does not exist,
    a table without a usable column or row, and columns that do not fit the run's."""
    source, options, codec = request.source, request.options, request.codec
    if options.time is not None or isinstance(codec, series.SeriesCodec):
        found: list[str] = []
        return series.of_table(request, _read(request, found), digest(request.file), found)
    options.only(source, "a table", "kind", "label", "labelled", "validation", "seed", "missing", "on_error")
    if options.kind == "sequences":
        raise UsageError(f"{source} is a table: name the column that says when each row was with --data.time COLUMN to read it as a series")
    if options.kind not in (None, "vectors"):
        raise UsageError(f"{source} is a table, which cannot be read as {options.kind}: its kind is vectors")
    if codec is not None and not isinstance(codec, TableCodec):
        raise UsageError(f"{source} is a table, and the run models {codec.name}: give it data of that kind")
    notes: list[str] = []
    frame = _read(request, notes)
    if not len(frame):
        raise UsageError(f"{source} has no rows: give a table with some")
    chosen = _label_columns(request, list(frame.columns))
    if codec is None:
        fields = _fields(frame.drop(columns=chosen), options.missing == "indicator", notes)
        if not fields:
            why = f" ({'; '.join(notes)})" if notes else ""
            raise UsageError(f"{source} has no column to model{why}: give one with numbers, or text of few different values")
    else:
        fields = list(codec.fields)
        _compare(frame, fields, chosen, source, notes)
    frame = _drop_rows(request, frame, fields, notes)
    rows = divide(len(frame), None, options.validation, request.seed)
    labels = read_labels(request, _labels(frame[chosen], source) if chosen else None, codec)
    if codec is None:
        fields = [_fit(field, frame[field.name], rows.train, notes) for field in fields]
        notes.append(_told(fields))
        modelled = {field.name for field in fields}
        places = [sum(before in modelled for before in frame.columns[: frame.columns.get_loc(name)]) for name in chosen]
        codec = TableCodec(tuple(fields), keep(labels.label) if labels else None, tuple(chosen), tuple(places))
    x = np.concatenate([field.encode(frame[field.name])[0] for field in fields], 1, dtype=np.float32)
    return assemble(
        request,
        torch.from_numpy(x),
        labels,
        rows,
        codec,
        kind="vectors",
        columns=codec.columns(),
        content=digest(request.file),
        notes=notes,
    )


def _read(request: Request, notes: list[str]) -> Any:
    pd, path = pandas(), request.file
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        elif request.options.on_error == "skip":
            bad: list[Any] = []
            # The slow reader is the one that says which lines it skips.
            frame = pd.read_csv(path, dtype_backend="numpy_nullable", engine="python", on_bad_lines=bad.append)
            notes += [f"{len(bad):,} lines with more cells than columns are left out"] if bad else []
        else:
            frame = pd.read_csv(path, dtype_backend="numpy_nullable", low_memory=False)
    except ImportError as error:
        raise UsageError('.parquet files need pyarrow: pip install "pofx[tables]"') from error
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{path} is empty: give a table") from error
    except pd.errors.ParserError as error:
        raise UsageError(f"{path} cannot be read ({str(error).strip()}): repair it, or give --data.on-error skip") from error
    except PermissionError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} is not a whole {path.suffix} table ({error}): save it again") from error
    frame.columns = [str(name) for name in frame.columns]
    if len(frame.columns) and all(map(_number, frame.columns)):
        notes.append(
            f"the first line of {path.name} is taken for the names of the columns, and holds numbers alone ({frame.columns[0]}, ...): "
            "if it is a row like the others, put a line of names before it"
        )
    if frame.columns.has_duplicates:
        raise UsageError(f"{path} has two columns named {frame.columns[frame.columns.duplicated()][0]!r}: rename one")
    return frame.reset_index(drop=True)


def _number(name: str) -> bool:
    """Whether a name is written as a number."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def _label_columns(request: Request, columns: list[str]) -> list[str]:
    """The columns of the label, in the order of the table."""
    wanted, codec = request.options.label, request.codec
    if isinstance(codec, TableCodec):
        learned = list(codec.label_columns)
        if wanted is not None and sorted(chosen_columns(wanted, learned, "the run's label")) != sorted(learned):
            raise UsageError(f"the run learned the label {','.join(learned)}, not {wanted}: leave --data.label out")
        return learned if set(learned) <= set(columns) else []
    chosen = chosen_columns(wanted, columns, request.source)
    return [name for name in columns if name in chosen]


def _fields(frame: Any, indicator: bool, notes: list[str]) -> list[Field]:
    """The usable columns and their kinds; a note on each that is left out."""
    types, fields = pandas().api.types, []
    for name in frame.columns:
        values = frame[name]
        flag = types.is_bool_dtype(values.dtype)
        empty = bool(values.isna().any())
        if values.isna().all():
            notes.append(f"column {name} is empty and left out")
        elif flag or types.is_string_dtype(values.dtype) or isinstance(values.dtype, pandas().CategoricalDtype):
            found = sorted(set(cells(values)) - {None})
            if len(found) > LEVELS or (len(found) == len(values) > 20):
                notes.append(f"column {name} has {len(found):,} different texts, is taken for an identifier and left out")
                continue
            dtype = "boolean" if flag else "string"
            fields.append(Field(name, "category", dtype, levels=(*found, *([None] if empty and indicator else []))))
        elif types.is_numeric_dtype(values.dtype) and not types.is_complex_dtype(values.dtype):
            kind = "integer" if types.is_integer_dtype(values.dtype) else "number"
            empty = bool(np.isnan(numbers(values, name)).any())
            fields.append(Field(name, kind, str(values.dtype), missing=empty and indicator))
        else:
            notes.append(f"column {name} holds {values.dtype}, which is not read, and is left out")
    return fields


def _named(field: Field) -> str:
    """A column with the number of its categories, and whether some of its cells are empty."""
    levels = len(field.levels) - (None in field.levels)
    about = [str(levels)] * (field.kind == "category") + ["some empty"] * (field.missing or None in field.levels)
    return f"{field.name} ({', '.join(about)})" if about else field.name


def _told(fields: list[Field]) -> str:
    """How each column was read, of many the first few."""
    parts = []
    for kind, what in (("number", "numbers"), ("integer", "whole numbers"), ("category", "categories")):
        names = [_named(field) for field in fields if field.kind == kind]
        more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
        parts += [f"{what}: {', '.join(names[:TOLD])}{more}"] if names else []
    return f"columns are read as {'; '.join(parts)}"


def _compare(frame: Any, fields: list[Field], label: list[str], source: str, notes: list[str]) -> None:
    """Raises `UsageError` where the table lacks a column of the run; a note on those that the run does not know."""
    names = [field.name for field in fields]
    if lacking := [name for name in names if name not in frame.columns]:
        raise UsageError(f"{source} lacks the column {lacking[0]!r} that the run learned: its columns are {', '.join(frame.columns[:20])}")
    if more := [name for name in frame.columns if name not in (*names, *label)]:
        notes.append(f"columns that the run does not know are left out: {', '.join(more[:5])}{' ...' if len(more) > 5 else ''}")


def _drop_rows(request: Request, frame: Any, fields: list[Field], notes: list[str]) -> Any:
    """The rows with a place in the vector. Rows without one have an empty cell and `--data.missing drop`, or a cell that
    the run never saw and `--data.on-error skip`; else that is an error."""
    options, bad = request.options, np.zeros(len(frame), dtype=bool)
    for field in fields:
        misfit = field.encode(frame[field.name])[1]
        empty = frame[field.name].isna().to_numpy(dtype=bool) & (options.missing == "drop")
        if (misfit & ~empty).any() and options.on_error == "stop":
            row = int(np.flatnonzero(misfit & ~empty)[0])
            cell = cells(frame[field.name].iloc[row : row + 1])[0]
            what = "an empty cell" if cell is None else repr(cell)
            raise UsageError(
                f"row {row + 1:,} of {request.source} has {what} in column {field.name}, which the run never saw: "
                "remove such rows, or give --data.on-error skip"
            )
        bad |= misfit | empty
    if bad.all():
        raise UsageError(f"every row of {request.source} has a cell that cannot be used: fill the cells, or remove the columns they are in")
    if bad.any():
        notes.append(f"{int(bad.sum()):,} of {len(frame):,} rows have cells that cannot be used and are left out")
    return frame[~bad].reset_index(drop=True)


def _fit(field: Field, values: Any, train: torch.Tensor, notes: list[str]) -> Field:
    """The field with the statistics of its numbers on the training rows."""
    if field.kind == "category":
        return field
    found = numbers(values, field.name)[train.numpy()]
    found = found[~np.isnan(found)]
    if not len(found):
        notes.append(f"column {field.name} is empty in every training row")
        return field
    mean, std, constant = standardisation(torch.from_numpy(found)[:, None], torch.arange(len(found)))
    if constant:
        notes.append(f"column {field.name} never changes in the training rows and is only centred")
    return dataclasses.replace(field, mean=float(mean), std=float(std), low=float(found.min()), high=float(found.max()))


def _labels(frame: Any, source: str) -> Labels:
    """Of one column, text and few different integers are classes and other numbers values; several columns are attributes,
    where all numbers are 0 and 1 (false and true), or values."""
    types = pandas().api.types
    if len(frame.columns) == 1:
        name = frame.columns[0]
        values = frame[name]
        numeric = types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype)
        if not numeric or (types.is_integer_dtype(values.dtype) and values.nunique() <= CLASSES):
            return from_names(cells(values))
        return Labels(torch.from_numpy(numbers(values, name).astype(np.float32))[:, None], Values((name,)))
    for name in frame.columns:
        if not types.is_numeric_dtype(frame[name].dtype):
            raise UsageError(f"several columns are labels only as numbers, and {name} of {source} holds text: choose one with --data.label")
    columns = [numbers(frame[name], name) for name in frame.columns]
    return from_array(np.stack(columns, 1), list(frame.columns), source=source)
