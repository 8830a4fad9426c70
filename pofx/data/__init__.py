"""Data sources: every module here with `NAMES`, `matches` and `load` is one, found by its file."""

import difflib
import functools
import importlib
import pathlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pofx.core import UsageError
from pofx.data.corpus import joined
from pofx.data.dataset import Codec, Dataset, Split
from pofx.data.options import Options, Request

__all__ = ["Codec", "Dataset", "Options", "Split", "codec_from_json", "everything", "from_arrays", "load", "names"]


@functools.cache
def _modules() -> tuple[ModuleType, ...]:
    return tuple(importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))


def _sources() -> list[ModuleType]:
    return [module for module in _modules() if hasattr(module, "NAMES")]


def names() -> dict[str, str]:
    """Built-in names, each with a one-line description."""
    return {name: text for module in _sources() for name, text in sorted(module.NAMES.items())}


def load(source: str | pathlib.Path, options: Options | None = None, *, codec: Codec | None = None) -> Dataset:
    """The data set behind a built-in name (which wins over a path without a slash) or a path; equal options give equal data.

    Arguments:
        codec: of a trained run; the source is then read with its size, scaling, vocabulary, columns and class names.
    Raises `UsageError` for data that do not exist, cannot be read or do not fit the options or the codec.
    """
    options = options or Options()
    name = str(source)
    if isinstance(source, str):
        for module in _sources():
            if name in module.NAMES:
                return module.load(Request(name, None, options, codec))
    path = pathlib.Path(source).expanduser()
    if not name or not path.exists():
        raise UsageError(_unknown(name, path))
    request = Request(name, path, options, codec)
    for module in _sources():
        if module.matches(path):
            try:
                return module.load(request)
            except PermissionError as error:
                raise UsageError(f"{error.filename or path} may not be read: change its permissions") from error
    known = ", ".join(module.READS for module in _sources() if hasattr(module, "READS"))
    raise UsageError(f"{path} is of an unknown type: data are {known}, or a built-in name ({', '.join(names())})")


def _unknown(name: str, path: pathlib.Path) -> str:
    """The sentence about data that do not exist, with the nearest names of built-ins and of files beside the path."""
    beside: list[str] = []
    if path.parent.is_dir():
        beside = [str(path.parent / entry.name) if "/" in name else entry.name for entry in sorted(path.parent.iterdir())[:10_000]]
    near = difflib.get_close_matches(name, [*names(), *beside], n=3, cutoff=0.6)
    way_out = f"did you mean {' or '.join(near)}?" if near else f"give a path that exists, or one of {', '.join(names())}"
    return f"there are no data named {name!r}: {way_out}"


def from_arrays(
    x: np.ndarray | torch.Tensor,
    label: np.ndarray | torch.Tensor | None = None,
    options: Options | None = None,
    *,
    codec: Codec | None = None,
    source: str = "arrays",
) -> Dataset:
    """The data set of arrays in memory, read as a .npz file of `x` and `label` would be."""
    from pofx.data import arrays
    from pofx.data.labels import from_array

    array, labels = np.asarray(x), None if label is None else from_array(np.asarray(label))
    return arrays.build(Request(source, None, options or Options(), codec), array, labels)


def everything(dataset: Dataset) -> Split:
    """All examples of a data set in the order of its source, whatever part they belong to."""
    train = dataset.train
    if train.tokens:
        return Split(joined([part.x for part in (train, dataset.validation, dataset.test) if part is not None]), tokens=True)
    return Split(train.x, train.label, bits=train.bits, seed=train.seed)


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_tuples, value))
    return value


def codec_from_json(values: Mapping[str, Any]) -> Codec:
    """The codec that `to_json` wrote. Raises `UsageError` for one of another version."""
    _modules()
    fields = {key: _tuples(value) for key, value in values.items() if key != "name"}
    for cls in Codec.__subclasses__():
        if cls.name == values.get("name"):
            try:
                return cls.from_json(fields) if hasattr(cls, "from_json") else cls(**fields)
            except TypeError as error:
                raise UsageError(f"the codec {values['name']!r} was written by another version of pofx ({error})") from error
    raise UsageError(f"there is no codec named {values.get('name')!r} in this version of pofx")
