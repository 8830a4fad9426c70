"""Labels: from arrays, names and columns to `Classes`, `Attributes` or `Values`, and back."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from pofx.core import Attributes, Classes, Label, UsageError, Values, mix

#: A label as codecs keep it: ("classes" | "attributes" | "values", names).
Kept: TypeAlias = tuple[str, tuple[str, ...]] | None

_KINDS: dict[str, type[Classes] | type[Attributes] | type[Values]] = {"classes": Classes, "attributes": Attributes, "values": Values}
#: Integers with at most so many different values are classes; more of them are measurements.
CLASSES = 100
#: Columns that a sentence names.
NAMED = 20


def keep(label: Label | None) -> Kept:
    """The label as a JSON-able pair of kind and names."""
    return None if label is None else (type(label).__name__.lower(), tuple(label.names))


def kept(pair: Kept) -> Label | None:
    """The label that `keep` made a pair of."""
    return None if pair is None else _KINDS[pair[0]](tuple(pair[1]))


@dataclasses.dataclass(frozen=True)
class Labels:
    """One label a row (-1 or NaN where missing), what they mean, and sentences about what was done to them."""

    value: Shaped[Tensor, "n ..."]
    label: Label
    notes: tuple[str, ...] = ()


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts s2 before s10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def from_names(names: Sequence[str | None]) -> Labels:
    """Classes in natural order, from one class name a row; None is missing."""
    classes = sorted({name for name in names if name is not None}, key=lambda name: (natural(name), name))
    index = {name: i for i, name in enumerate(classes)}
    return Labels(torch.tensor([-1 if name is None else index[name] for name in names], dtype=torch.int64), Classes(tuple(classes)))


def from_array(array: np.ndarray, names: Sequence[str] | None = None, *, source: str = "the arrays") -> Labels:
    """Labels from an array of (n,) or (n, labels): strings and few integers are classes, columns of 0 and 1 attributes,
    other numbers values. -1 (integers and attributes), NaN and empty strings are missing; but where all numbers are -1
    and 1, these mean no and yes.

    Arguments:
        names: of the columns.
        source: as errors name it.
    Raises `UsageError` for any other shape or type.
    """
    kind = array.dtype.kind
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or kind not in "biufUS":
        raise UsageError(
            f"labels of {source} must be numbers or strings of shape (n,) or (n, labels), not {array.dtype} of shape {array.shape}"
        )
    if kind == "f" and np.isinf(array).any():
        raise UsageError(f"a label of {source} is infinite: only finite numbers, and NaN for a missing one, are labels")
    names = tuple(names or (["label"] if array.ndim == 1 else [f"label {i}" for i in range(array.shape[1])]))
    if array.ndim == 1 and kind in "US":
        return from_names([str(name) or None for name in array])
    if kind in "US":
        raise UsageError(f"several labels a row must be numbers, and those of {source} are {array.dtype}: convert them")
    array, notes = _from_signs(array, source)
    if array.ndim == 1 and kind in "biu" and len(np.unique(array)) <= CLASSES:
        classes = from_names([None if kind == "i" and value == -1 else str(value) for value in array.tolist()])
        return dataclasses.replace(classes, notes=notes)
    flags = np.nan_to_num(array, nan=-1) if kind == "f" else array
    if array.ndim == 2 and np.isin(flags, (-1, 0, 1)).all():
        return Labels(torch.from_numpy(flags.astype(np.int64)), Attributes(names), notes)
    values = torch.from_numpy(array.astype(np.float32))
    return Labels(values.reshape(len(array), -1), Values(names))


def _from_signs(array: np.ndarray, source: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers that are all -1 (no) and 1 (yes), both of which occur, as 0 and 1 with a note; others as they are."""
    found = np.unique(array[~np.isnan(array)] if array.dtype.kind == "f" else array)
    if found.tolist() != [-1, 1]:
        return array, ()
    signs = np.where(array == -1, np.zeros_like(array), array)
    return signs, (f"the labels of {source} are all -1 or 1, and are read as 0 (no) and 1 (yes)",)


def scaled(labels: Labels, rows: Tensor) -> Label:
    """What the labels mean; of values with mean and standard deviation (1 for one that never changes) over those of `rows` that
    are known."""
    if not isinstance(labels.label, Values):
        return labels.label
    value = labels.value[rows].to(torch.float64)
    known = ~value.isnan()
    count = known.sum(0).clamp(min=1)
    mean = value.nan_to_num(0.0).sum(0) / count
    std = ((value - mean).square().nan_to_num(0.0).sum(0) / count).sqrt()
    std = torch.where(std > 1e-12 * mean.abs().clamp(min=1e-12), std, 1.0)
    return dataclasses.replace(labels.label, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def chosen_columns(wanted: str | None, columns: Sequence[str], source: str) -> list[str]:
    """The columns that `--data.label` names: one, several with commas between them, or none. Raises `UsageError` for a name
    that no column has."""
    # A name may have a comma in it.
    names = [] if wanted is None else [wanted] if wanted in columns else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=3)
            guess = f"did you mean {' or '.join(near)}?" if near else f"its columns are {', '.join(columns[:NAMED])}"
            raise UsageError(f"{source} has no column {name!r} for the label: {guess}")
    if len(set(names)) < len(names):
        raise UsageError(f"--data.label {wanted} names a column twice: name each once")
    return names


def adapt(labels: Labels, to: Label) -> Labels:
    """The labels in the numbering of a run; classes that the run never saw become missing, with a note.

    Raises `UsageError` where the kind or the columns differ.
    """
    if type(labels.label) is not type(to) or (not isinstance(to, Classes) and labels.label.names != to.names):
        have, want = (f"{type(label).__name__.lower()} ({', '.join(label.names[:5])})" for label in (labels.label, to))
        raise UsageError(f"the labels here are {have}, and the run learned {want}: give data with the same labels")
    if not isinstance(to, Classes) or labels.label == to:
        return labels
    index = {name: i for i, name in enumerate(to.names)}
    table = torch.tensor([index.get(name, -1) for name in labels.label.names] + [-1], dtype=torch.int64)
    new = [name for name in labels.label.names if name not in index]
    note = (f"classes that the run never saw count as missing: {', '.join(new[:5])}{' ...' if len(new) > 5 else ''}",) if new else ()
    return Labels(table[labels.value], to, labels.notes + note)


def restore(value: Tensor, label: Label) -> np.ndarray:
    """Labels as the source had them: class names (integers where all names are), 0/1, or numbers."""
    if not isinstance(label, Classes):
        return value.cpu().numpy()
    whole = all(re.fullmatch(r"-?\d{1,18}", name) and str(int(name)) == name for name in label.names)
    table = np.array([*map(int, label.names), -1], dtype=np.int64) if whole else np.array([*label.names, ""])
    return table[value.cpu().numpy()]


def hide(labels: Labels, rows: Tensor, count: int, seed: int) -> Labels:
    """The labels with all but `count` of those of `rows` hidden, as many of each class as can be. Raises `UsageError`
    where fewer are labelled."""
    value = labels.value.clone()
    missing = torch.isnan(value) if value.is_floating_point() else value == -1
    have = rows[~missing[rows].reshape(len(rows), -1).all(1)]
    if count > len(have):
        raise UsageError(f"--data.labelled {count} asks for more labels than the {len(have):,} training examples that have one")
    shuffled = have[torch.randperm(len(have), generator=torch.Generator().manual_seed(mix(seed, "labelled")))]
    if isinstance(labels.label, Classes):
        # The r-th example of every class comes before the (r+1)-th of any.
        rank = torch.empty(len(shuffled), dtype=torch.int64)
        for i in range(len(labels.label.names)):
            of_class = value[shuffled] == i
            rank[of_class] = torch.arange(int(of_class.sum()))
        shuffled = shuffled[torch.argsort(rank, stable=True)]
    value[shuffled[count:]] = float("nan") if value.is_floating_point() else -1
    return dataclasses.replace(labels, value=value)
