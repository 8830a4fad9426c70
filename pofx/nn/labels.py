"""Labels as a condition: the vector that says them, the null label of rows without one, the training marginal to draw from.

A conditional model keeps a `Condition` as its attribute `condition`; labels are as in `Batch.label`.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from pofx.core import Attributes, Classes, DataSpec, Label, Noise, UsageError, Values

HIDDEN = 0.1
"""Share of the labels that training hides, so that the null label is learned where every row has one."""
KEPT = 4096
"""Rows of attributes or values that are kept; training visits examples in random order, so that they are a fair draw."""
MIXED = 64
"""Labels over which a likelihood is mixed."""


class Condition(nn.Module):
    """What a conditional model knows of labels of any kind.

    Its memory of the training marginal is all integers, which averaged weights copy: how often each class was seen, or the
    labels of the last `KEPT` rows seen that had any (values by the bits of their float32).

    Arguments:
        spec: its label says which kind. name: of the model, as errors say it.
    Raises `UsageError` where the data have no labels.

    Attributes:
        width: length of the vector of a label.
    """

    def __init__(self, spec: DataSpec, name: str) -> None:
        super().__init__()
        if spec.label is None:
            raise UsageError(
                f"a conditional {name} needs data with labels, and these have none: name their column with --data.label, or leave "
                "--model.conditional out"
            )
        self.meaning: Label = spec.label
        names = len(spec.label.names)
        if isinstance(spec.label, Classes):
            self.width = names + 1
            self.register_buffer("counts", torch.zeros(names, dtype=torch.int64))
        else:
            self.width = names if isinstance(spec.label, Attributes) else 2 * names
            whole = torch.int64 if isinstance(spec.label, Attributes) else torch.int32
            self.register_buffer("rows", torch.zeros(min(KEPT, spec.size or KEPT), names, dtype=whole))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def vector(self, label: Tensor | None, like: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch width"]:
        """What networks are told: of classes a one-hot row whose last place is the null label; of attributes 1 and -1, 0 where
        missing; of values their standard scores, 0 where missing, then 1 for each that is known. None: no row has a label."""
        n, names = len(like), len(self.meaning.names)
        if isinstance(self.meaning, Classes):
            place = torch.full((n,), names, device=like.device) if label is None else torch.where(label < 0, names, label)
            return F.one_hot(place, names + 1).to(torch.float32)
        if label is None:
            return torch.zeros(n, self.width, device=like.device)
        if isinstance(self.meaning, Attributes):
            return torch.where(label < 0, 0, 2 * label - 1).to(torch.float32)
        return torch.cat((standardised(self.meaning, label).nan_to_num(0.0), (~label.isnan()).to(torch.float32)), 1)

    def check(self, label: Tensor, n: int, *, missing: bool = True) -> None:
        """Raises `UsageError` for anything but n labels of this kind, and for missing ones where `missing` is False."""
        names = len(self.meaning.names)
        if isinstance(self.meaning, Classes):
            lowest = -1 if missing else 0
            if label.shape != (n,) or label.dtype != torch.int64 or not bool(((lowest <= label) & (label < names)).all()):
                raise UsageError(f"label must be {n:,} class numbers from {lowest} to {names - 1}, one for each example")
        elif isinstance(self.meaning, Attributes):
            lowest = -1 if missing else 0
            if label.shape != (n, names) or label.dtype != torch.int64 or not bool(((lowest <= label) & (label <= 1)).all()):
                raise UsageError(f"label must be {n:,} rows of {names} attributes, each an integer from {lowest} to 1")
        else:
            fine = label.shape == (n, names) and label.is_floating_point() and not bool(label.isinf().any())
            if not fine or not (missing or bool(label.isfinite().all())):
                raise UsageError(f"label must be {n:,} rows of {names} finite numbers" + (", NaN where missing" if missing else ""))

    # ------------------------------------------------------------------------------------------------- the marginal

    @torch.no_grad()
    def learn(self, label: Shaped[Tensor, "batch ..."]) -> None:
        """Takes the labels that are not missing into the marginal, in place."""
        if isinstance(self.meaning, Classes):
            self.counts += torch.bincount(label[label >= 0], minlength=len(self.counts))
            return
        rows = label[~absent(label).all(1)][-len(self.rows) :]
        place = (self.seen + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[place] = rows if rows.dtype == torch.int64 else rows.to(torch.float32).view(torch.int32)
        self.seen += len(rows)

    def _known(self) -> Shaped[Tensor, "rows names"]:
        """The labels that are kept."""
        rows = self.rows[: int(self.seen)]
        return rows if rows.dtype == torch.int64 else rows.view(torch.float32)

    def range(self, index: int) -> tuple[float, float] | None:
        """The least and the largest of a value among the labels that are kept; None where there is none, and of other kinds."""
        if not isinstance(self.meaning, Values):
            return None
        known = self._known()[:, index]
        known = known[~known.isnan()]
        return (float(known.min()), float(known.max())) if len(known) else None

    def draw(self, noise: Noise) -> Shaped[Tensor, "n ..."]:
        """Labels from the training marginal; before any training every class and attribute is as likely as any other, and
        values are those of a Gaussian."""
        return self.complete({}, noise)

    def complete(self, given: Mapping[int, float], noise: Noise) -> Shaped[Tensor, "n ..."]:
        """Labels with some attributes or values as they are given, by their number, the others from the training marginal:
        of rows that have the given attributes, if there are any."""
        if isinstance(self.meaning, Classes):
            return noise.categorical(self.counts.clamp(min=int(self.counts.sum() == 0))[None])
        rows, binary = self._known(), isinstance(self.meaning, Attributes)
        if binary and given:
            alike = torch.stack([rows[:, i] == value for i, value in given.items()]).all(0)
            rows = rows[alike] if bool(alike.any()) else rows
        label = self._prior(noise)
        if len(rows):
            label = rows[_place(noise, len(rows))]
            for i in torch.nonzero(absent(rows).any(0)).flatten().tolist():
                # What a row does not say is drawn from those that do.
                known = rows[~absent(rows[:, i]), i]
                other = known[_place(noise, len(known))] if len(known) else self._prior(noise)[:, i]
                label[:, i] = torch.where(absent(label[:, i]), other, label[:, i])
        for i, value in given.items():
            label[:, i] = value
        return label

    def _prior(self, noise: Noise) -> Shaped[Tensor, "n names"]:
        """Labels before anything is known of them."""
        if isinstance(self.meaning, Attributes):
            return (noise.uniform(len(self.meaning.names)) < 0.5).to(torch.int64)
        assert isinstance(self.meaning, Values)
        mean, std = _scale(self.meaning, self.rows)
        return mean + std * noise.normal(len(self.meaning.names))

    def mixture(self) -> tuple[Shaped[Tensor, "labels ..."], Float[Tensor, " labels"], bool]:
        """Labels, the logarithms of their probabilities, and whether these are all that training has seen: of more than `MIXED`
        different rows of attributes or values as many draws stand for all."""
        if isinstance(self.meaning, Classes):
            counts = self.counts.clamp(min=int(self.counts.sum() == 0)).to(torch.float32)
            label = torch.nonzero(counts).flatten()
            return label, (counts[label] / counts.sum()).log(), True
        if not int(self.seen):
            label = self._prior(Noise(0, MIXED, device=self.rows.device))
        else:
            # By their bits: NaN equals itself.
            rows, counts = self.rows[: int(self.seen)].unique(dim=0, return_counts=True)
            if len(rows) <= MIXED:
                label = rows if rows.dtype == torch.int64 else rows.view(torch.float32)
                return label, (counts / counts.sum()).log(), True
            label = self._known()[:MIXED]
        return label, torch.full((len(label),), 1 / len(label), device=label.device).log(), False


def _place(noise: Noise, rows: int) -> Int64[Tensor, " n"]:
    """One of so many rows, all equally likely."""
    return (noise.uniform(1)[:, 0] * rows).to(torch.int64).clamp(max=rows - 1)


def _scale(meaning: Values, like: Tensor) -> tuple[Float[Tensor, " names"], Float[Tensor, " names"]]:
    names = len(meaning.names)
    mean, std = meaning.mean or (0.0,) * names, meaning.std or (1.0,) * names
    return torch.tensor(mean, device=like.device), torch.tensor(std, device=like.device)


def standardised(meaning: Values, label: Float[Tensor, "batch names"]) -> Float[Tensor, "batch names"]:
    """Values by the mean and standard deviation of the training rows."""
    mean, std = _scale(meaning, label)
    return (label - mean) / std


def absent(label: Shaped[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Where a label, or an element of it, is missing."""
    return label.isnan() if label.is_floating_point() else label < 0


def known(label: Shaped[Tensor, "batch ..."]) -> Bool[Tensor, " batch"]:
    """The rows whose label has nothing missing."""
    return ~absent(label).reshape(len(label), -1).any(1)


def hide(label: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
    """The labels with a random share of `HIDDEN` of the rows made missing."""
    hidden = torch.rand(len(label), device=label.device) < HIDDEN
    return torch.where(hidden.view(-1, *(1,) * (label.ndim - 1)), torch.nan if label.is_floating_point() else -1, label)


def shown(
    condition: Condition | None, label: Shaped[Tensor, "batch ..."] | None, *, training: bool, learn: bool = True
) -> Shaped[Tensor, "batch ..."] | None:
    """The labels of a batch that a loss is computed with: none without a condition, and in training some of them hidden, once the
    marginal has taken them in (`learn`)."""
    if condition is None or label is None or not training:
        return None if condition is None else label
    if learn:
        condition.learn(label)
    return hide(label)


def check(condition: Condition | None, label: Tensor | None, n: int, name: str, *, missing: bool = True) -> None:
    """Raises `UsageError` for labels that do not fit n examples of a model called `name`, which takes none where `condition` is
    None."""
    if label is None:
        return
    if condition is None:
        raise UsageError(f"this {name} was trained without labels: leave the label out, or train with --model.conditional true")
    condition.check(label, n, missing=missing)


def exact_log_prob(
    condition: Condition | None,
    nll: Callable[[Tensor, Tensor | None], Float[Tensor, " part"]],
    x: Shaped[Tensor, "batch ..."],
    label: Tensor | None,
    *,
    part: int = 64,
) -> tuple[Float[Tensor, " batch"], Literal["exact", "lower bound"]]:
    """log p(x|label) of a model that knows it exactly; without labels of a conditional one log sum_y p(y) p(x|y) over the training
    marginal, a lower bound in the mean where some of very many different rows of attributes or values stand for all.

    Arguments:
        nll: -log p of examples under labels. part: examples that it is asked about at once.
    """
    if condition is None or label is not None:
        rows = itertools.repeat(None) if label is None else label.split(part)
        return torch.cat([-nll(some, y) for some, y in zip(x.split(part), rows, strict=False)]), "exact"
    mixed, log_marginal, whole = condition.mixture()
    each = [torch.cat([-nll(some, y.expand(len(some), *y.shape)) for some in x.split(part)]) for y in mixed]
    return (torch.stack(each) + log_marginal[:, None]).logsumexp(0), "exact" if whole else "lower bound"


def refuse(label: Tensor | None, name: str) -> None:
    """Raises `UsageError` for a label that a model without labels, called `name` with its article, is given."""
    if label is not None:
        raise UsageError(f"{name} takes no labels: leave the label out")
