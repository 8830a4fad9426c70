"""Classes as a condition: the null label of rows without one, and the training marginal that labels are drawn from.

A conditional model keeps how often training has shown each class in an int64 buffer, `label_counts` (classes,).
"""

import torch
from jaxtyping import Int64
from torch import Tensor

from pofx.core import Classes, DataSpec, Noise, UsageError

HIDDEN = 0.1
"""Share of the labels that training hides, so that the null label is learned where every row has one."""


def zero_counts(spec: DataSpec, name: str) -> Int64[Tensor, " classes"]:
    """The counts before any training. Raises `UsageError` where the data have no classes for the model called `name`."""
    if not isinstance(spec.label, Classes):
        raise UsageError(f"a conditional {name} needs data with classes: give labels, or --model.conditional false")
    return torch.zeros(len(spec.label.names), dtype=torch.int64)


def check(label: Tensor | None, n: int, counts: Tensor | None, name: str, *, lowest: int = -1) -> None:
    """Raises `UsageError` for a label that is not n classes from `lowest` on, or that a model without `counts` cannot take."""
    if label is None:
        return
    if counts is None:
        raise UsageError(f"this {name} was trained without labels: leave the label out, or train with --model.conditional true")
    classes = len(counts)
    if label.shape != (n,) or label.dtype != torch.int64 or not bool(((lowest <= label) & (label < classes)).all()):
        raise UsageError(f"label must be {n:,} class numbers from {lowest} to {classes - 1}, one for each example")


def refuse(label: Tensor | None, name: str) -> None:
    """Raises `UsageError` for a label that a model without labels, called `name` with its article, is given."""
    if label is not None:
        raise UsageError(f"{name} takes no labels: leave the label out")


def place(label: Int64[Tensor, " batch"] | None, like: Tensor, classes: int) -> Int64[Tensor, " batch"]:
    """The class of each row of `like`, and `classes`, which is the null label, where there is none."""
    if label is None:
        return torch.full((len(like),), classes, device=like.device)
    return torch.where(label < 0, classes, label)


def count(counts: Int64[Tensor, " classes"], label: Int64[Tensor, " batch"]) -> None:
    """Adds the labels that are not missing to `counts`, in place."""
    counts += torch.bincount(label[label >= 0], minlength=len(counts))


def hide(label: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """The labels with a random share of `HIDDEN` made missing."""
    return torch.where(torch.rand(len(label), device=label.device) < HIDDEN, -1, label)


def draw(counts: Int64[Tensor, " classes"], noise: Noise) -> Int64[Tensor, " n"]:
    """Classes from the training marginal; before any training every class is as likely as any other."""
    return noise.categorical(counts.clamp(min=int(counts.sum() == 0))[None])
