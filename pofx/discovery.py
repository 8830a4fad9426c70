"""Finds models, figures, metrics, priors and verbs by their files: adding one is adding a file, there is no registry.

The environment variable POFX_PATH names further folders that hold model files.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pofx.core import Capability, Model

Kind = Literal["models", "figures", "metrics", "priors", "verbs"]
_HERE = pathlib.Path(__file__).parent
_FOLDERS = {"models": "models", "figures": "figures", "metrics": "metrics", "priors": "priors", "verbs": "cli"}
#: What a person types as an argument is spelled with hyphens, its file with underscores.
_HYPHENS = ("figures", "verbs")
#: So few names are all told to whoever asks for another one, unless it is as much like one of them as this.
FEW, ALIKE = 4, 0.6


def _files(kind: Kind) -> dict[str, pathlib.Path]:
    """Name -> file. Files of POFX_PATH come after ours, which they cannot replace."""
    folder = _HERE / _FOLDERS[kind]
    found = sorted(folder.glob("*/*.py" if kind == "models" else "*.py"))
    if kind == "models":
        for extra in filter(None, os.environ.get("POFX_PATH", "").split(os.pathsep)):
            if not pathlib.Path(extra).is_dir():
                from pofx.core import UsageError

                raise UsageError(f"the environment variable POFX_PATH names {extra}, which is no folder: mend or unset it")
            found += sorted(pathlib.Path(extra).glob("*.py"))
    files: dict[str, pathlib.Path] = {}
    for path in found:
        if not path.stem.startswith("_"):
            files.setdefault(spelled(kind, path.stem), path)
    return files


def spelled(kind: Kind, name: str) -> str:
    """A name as it is listed, whether it was typed with hyphens or with underscores."""
    return name.replace("_", "-") if kind in _HYPHENS else name


def names(kind: Kind) -> list[str]:
    """The names there are."""
    return list(_files(kind))


def family(name: str) -> str:
    """The folder in which a model's file stands."""
    return _files("models")[name].parent.name


def _find(kind: Kind, name: str) -> pathlib.Path:
    files, name = _files(kind), spelled(kind, name)
    if name not in files:
        from pofx.core import UsageError  # here, since it imports torch, which `pofx --help` does not wait for

        raise UsageError(unknown(kind[:-1], name, list(files)))
    return files[name]


def unknown(what: str, name: str, known: list[str], offered: list[str] | None = None) -> str:
    """The sentence about a name that does not exist, with the nearest ones; where none is near, and of a few, with those
    `offered`, by default all."""
    alike = {other: difflib.SequenceMatcher(None, _own(other), _own(name)).ratio() for other in known}
    # Beside one that differs by a letter, others that share a few are noise.
    least = max(0.5, max(alike.values(), default=0.0) - 0.15)
    near = sorted((other for other in known if alike[other] >= least), key=alike.__getitem__, reverse=True)[:3]
    if near and (len(known) > FEW or alike[near[0]] >= ALIKE):
        return f"unknown {what} {name!r}: did you mean {' or '.join(near)}?"
    return f"unknown {what} {name!r}: there are {', '.join(known if offered is None else offered)}"


def _own(name: str) -> str:
    """A name without what all of its kind share: of a flag, its dashes and the group that it is in."""
    return name.rpartition(".")[2].removeprefix("--") if name.startswith("--") else name


def load(kind: Kind, name: str) -> ModuleType:
    """The module behind a name. Raises `UsageError` with the nearest names for an unknown one."""
    path = _find(kind, name)
    if path.is_relative_to(_HERE):
        return importlib.import_module(".".join(("pofx", *path.relative_to(_HERE).with_suffix("").parts)))
    return _load_file(path)


@functools.cache
def _load_file(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pofx_path_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and type hints look their module up
    spec.loader.exec_module(module)
    return module


def model(name: str) -> "type[Model]":
    """The model class of a file: the one subclass of `Model` that it defines."""
    from pofx.core import Model, UsageError

    module = load("models", name)
    classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Model) and v.__module__ == module.__name__]
    if len(classes) != 1:
        raise UsageError(f"{module.__file__} must define exactly one Model, not {len(classes)}")
    return classes[0]


def summary(kind: Kind, name: str) -> str:
    """The first line of the module's docstring, read without importing it."""
    docstring = ast.get_docstring(ast.parse(_find(kind, name).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def require(model: "Model", *capabilities: "type[Capability]", what: str) -> None:
    """Raises `UsageError` for the first capability that `model` lacks for `what`, with the setting that gives it, or else the models
    that have all of them."""
    from pofx.core import UsageError

    for capability in capabilities:
        if capability in model.capabilities:
            continue
        needs, name = f"{what} needs a model that {does(capability)}", type(model).__name__
        if isinstance(model, capability):
            raise UsageError(f"{needs}, which this {name}, as it was trained, does not: {model.conditions[capability]}")
        have = [other for other in names("models") if all(issubclass(_models()[other], each) for each in capabilities)]
        can = [f"{other} ({how})" if (how := _models()[other].conditions.get(capability)) else other for other in have]
        raise UsageError(f"{needs}, and {name} does not; " + (f"these can: {', '.join(can)}" if can else "no model here does"))


def does(capability: "type[Capability]") -> str:
    """What a model with a capability does, in words that go on a sentence."""
    words = (capability.__doc__ or "").partition("\n")[0].strip(".")
    return words[:1].lower() + words[1:]


def _models() -> dict[str, "type[Model]"]:
    return {name: model(name) for name in names("models")}
