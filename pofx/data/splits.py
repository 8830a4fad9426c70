"""Splits: which rows train, validate and test, and the data set made of them. Rows are numbers; nothing is copied."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from pofx.core import Column, DataSpec, UsageError, mix
from pofx.data.dataset import Codec, Dataset, Split
from pofx.data.labels import Labels, adapt, hide, kept, scaled
from pofx.data.options import Options, Request


class Rows(NamedTuple):
    """Row numbers of each part; an empty part is None."""

    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"] | None
    test: Int64[Tensor, " test"] | None


def divide(n: int, own: tuple[int, int, int] | None, share: float | None, seed: int) -> Rows:
    """The rows of each part.

    Arguments:
        n: rows of the source.
        own: how many rows, in order, are the source's own training, validation and test parts; None has them drawn.
        share: of training and validation rows together that validate; None for the source's own, else 10 % of a source
            that is divided here, else 5 %.
    """
    if own is None:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(mix(seed, "split")))
        tenth = n // 10
        pool, test = order[: n - tenth].sort().values, order[n - tenth :].sort().values
        held = tenth if share is None else round(share * len(pool))
    else:
        pool, test = torch.arange(own[0] + own[1]), torch.arange(own[0] + own[1], sum(own))
        if share is None and own[1]:
            return Rows(pool[: own[0]], pool[own[0] :], test if len(test) else None)
        held = round((0.05 if share is None else share) * len(pool))
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(mix(seed, "validation")))
    train, validation = pool[order[held:].sort().values], pool[order[:held].sort().values]
    if not len(train):
        raise UsageError("no example is left to train on: give more data")
    return Rows(train, validation if len(validation) else None, test if len(test) else None)


def fingerprint(content: str, options: Options) -> str:
    """Hash of the content and of the options that shape it (mirroring and what to do about errors do not)."""
    shaping = {name: value for name, value in options.to_json().items() if name not in ("flip", "on_error")}
    # These came later: runs from before them hold hashes without.
    shaping = {name: value for name, value in shaping.items() if value is not None or name not in ("time", "window", "vocabulary")}
    return hashlib.sha256(json.dumps([content, shaping], sort_keys=True).encode()).hexdigest()


def read_labels(request: Request, labels: Labels | None, codec: Codec | None) -> Labels | None:
    """The labels in the numbering of the run's codec, where there is one. Raises `UsageError` where labels were asked
    for and there are none."""
    if labels is None:
        if request.options.labelled is not None:
            raise UsageError(f"--data.labelled hides labels, and {request.source} has none: leave it out")
        return None
    learned = kept(getattr(codec, "label", None))
    return labels if learned is None else adapt(labels, learned)


def assemble(
    request: Request,
    x: Tensor,
    labels: Labels | None,
    rows: Rows,
    codec: Codec,
    *,
    kind: Any,
    content: str,
    columns: Sequence[Column] = (),
    bits: int | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of `x` (n, ...) as a model sees it, or as it is stored for images, with `labels` already read."""
    options = request.options
    if labels is not None and options.labelled is not None:
        labels = hide(labels, rows.train, options.labelled, request.seed)
    value = None if labels is None else labels.value

    def part(name: str, of: Tensor | None) -> Split | None:
        if of is None:
            return None
        # The one fixed binarisation does not depend on the seed of a training, so that runs are measured on the same bits.
        return Split(x, value, rows=of, bits=bits, flip=options.flip and name == "train", seed=mix(name))

    train = part("train", rows.train)
    assert train is not None
    spec = DataSpec(
        kind=kind,
        shape=tuple(x.shape[1:]),
        label=None if labels is None else scaled(labels, rows.train),
        size=len(rows.train),
        columns=tuple(columns),
        bits=bits,
    )
    return Dataset(
        source=request.source,
        spec=spec,
        codec=codec,
        train=train,
        validation=part("validation", rows.validation),
        test=part("test", rows.test),
        fingerprint=fingerprint(content, options),
        options=options.to_json(),
        notes=(*notes, *(labels.notes if labels else ())),
    )
