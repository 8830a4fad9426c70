"""What a person names, as a model is asked: data, texts, and labels such as cat,dog or smiling=1,glasses=0 or age=40."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Integer, Shaped
from torch import Tensor

from pofx import discovery, examples
from pofx.api import NAMED
from pofx.core import Attributes, Classes, Label, Model, Noise, UsageError, mix
from pofx.data import everything
from pofx.data.text import TokenCodec
from pofx.nn.labels import Condition
from pofx.progress import tell, warn

if TYPE_CHECKING:
    from pofx.data.dataset import Codec, Dataset, Split
    from pofx.run import Run


def opened(reference: str) -> "Run":
    """The run of that name, as `Run.open` finds it; that its training has not ended is told on standard error, unless a checkpoint was
    chosen."""
    from pofx.run import Run

    run = Run.open(reference)
    status = run.info.get("status", "")
    if status.startswith(("training", "interrupted", "failed")) and not reference.endswith(f"@{run.step}"):
        tell([f"the training of {run.path} has not ended ({status}); this is its move {run.step:,}"])
    return run


def ending(kind: str) -> str:
    """Of the file that examples of a kind are written to where none is named."""
    return {"images": ".png", "vectors": ".csv"}.get(kind, ".npz")


def data(run: "Run", source: str | None, on_error: Literal["stop", "skip"] = "stop") -> "tuple[Dataset, Split]":
    """The data of that name and all of their examples; None: the run's own, and what is held out of them.

    What was done to named data to make them fit the run, such as bringing images to another size, is told on standard error.
    """
    dataset = run.dataset(source, on_error=on_error)
    if source is None:
        return dataset, examples.held_out(dataset)[1]
    tell(dataset.notes)
    return dataset, everything(dataset)


def text(codec: "Codec", given: str) -> Integer[Tensor, " length"]:
    """The tokens of a text; warns of characters that the model has never seen."""
    assert isinstance(codec, TokenCodec)
    if strange := codec.strange(given):
        warn(f"the training text has no {strange}: the model reads one unknown symbol in the place of each")
    return codec.encode(given)


def parse(text: str, meaning: Label) -> list[int] | dict[int, float]:
    """Numbers of the classes that are named, or some of the attributes or values by their number. Raises `UsageError` for
    names and numbers that are none."""

    def known(name: str) -> int:
        if name not in meaning.names:
            raise UsageError(discovery.unknown("label", name, list(meaning.names), [repr(other) for other in meaning.names]))
        return meaning.names.index(name)

    if isinstance(meaning, Classes):
        # A name may have a comma in it.
        names = [text] if text in meaning.names else [name.strip() for name in text.split(",")]
        return [known(name) for name in names]
    binary, some = isinstance(meaning, Attributes), ", ".join(meaning.names[:NAMED])
    found = values(text, "--label", f"NAME={'0 or NAME=1' if binary else 'NUMBER'}; names are {some}")
    numbered = {}
    for name, value in found.items():
        numbered[known(name)] = value
        if binary and value not in (0, 1):
            raise UsageError(f"--label {name}={value:g}: {name} is 0 or 1")
    return numbered


def values(text: str, flag: str, form: str = "NAME=NUMBER") -> dict[str, float]:
    """Finite numbers by their names, as in age=40,height=1.8. Raises `UsageError` for anything else, in the name of a flag."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        if not equals:
            raise UsageError(f"{flag} {part.strip()} gives no number: write {form}")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"{flag} {name}={number}: {name} is a finite number")
        if name in found:
            raise UsageError(f"{flag} names {name} twice: name it once")
        found[name] = value
    return found


def labels(model: Model, text: str | None, n: int, seed: int) -> Shaped[Tensor, "n ..."] | None:
    """The labels of n samples: of several classes as many each, one after the other; attributes and values that are not named,
    and all labels where `text` is None, are drawn from the training marginal. None for a model without labels.

    Raises `UsageError` for a model without labels that is asked for some, and for names that it does not know.
    """
    condition = getattr(model, "condition", None)
    if condition is None:
        if text is None:
            return None
        instead = ", or train with --model.conditional true" if hasattr(model.config, "conditional") else ""
        raise UsageError(f"this model was trained without labels: leave --label out{instead}")
    # Drawn here and not in the model, so that they can be written beside the samples.
    if text is None:
        return condition.draw(_noise(seed, n, model.device))
    wanted = parse(text, condition.meaning)
    if isinstance(wanted, dict):
        for index, value in wanted.items():
            if (known := condition.range(index)) is not None and not known[0] <= value <= known[1]:
                warn(
                    f"{condition.meaning.names[index]}={value:g} lies outside of what training has seen, {known[0]:g} to {known[1]:g}: "
                    "what the model makes of it is a guess"
                )
        return condition.complete(wanted, _noise(seed, n, model.device))
    return torch.tensor(wanted)[torch.arange(n) * len(wanted) // n]


def names(model: Model, label: Tensor | None) -> list[str] | None:
    """What the classes are called that labels are; None where they are no classes, or the model does not ask for any."""
    meaning = model.spec.label
    if label is None or examples.conditions(model, label) is None or not isinstance(meaning, Classes):
        return None
    return [meaning.names[int(index)] if index >= 0 else "no label" for index in label]


def _noise(seed: int, n: int, device: torch.device | str = "cpu") -> Noise:
    """What labels are drawn from: examples of equal seed have a stream of their own, and a label must not tell anything of them."""
    return Noise(mix(seed, "labels"), n, device=device)


def shown(condition: Condition, each: int, most: int, seed: int) -> tuple[list[str], Shaped[Tensor, "n ..."]]:
    """Names of at most so many rows of a picture, and the labels of `each` samples of every one: a class, an attribute that is
    there, or a value a standard deviation and a half below, at or above its mean."""
    meaning = condition.meaning
    rows: list[tuple[str, Mapping[int, float]]] = []
    if isinstance(meaning, Classes):
        names = list(meaning.names[:most])
        return names, torch.arange(len(names)).repeat_interleave(each)
    for i, name in enumerate(meaning.names):
        if isinstance(meaning, Attributes):
            rows.append((name, {i: 1}))
        else:
            mean, std = (meaning.mean or (0.0,) * len(meaning.names))[i], (meaning.std or (1.0,) * len(meaning.names))[i]
            rows += [(f"{name} {value:.3g}", {i: value}) for value in (mean - 1.5 * std, mean, mean + 1.5 * std)]
    # The same noise in each row: what differs is what was asked for.
    return [name for name, _ in rows[:most]], torch.cat([condition.complete(given, _noise(seed, each)) for _, given in rows[:most]])
