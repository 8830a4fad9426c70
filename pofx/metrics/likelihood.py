"""Negative log-likelihood of held-out examples, exact or a bound, beside counting baselines; and its noise floor where known."""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pofx import baselines, examples
from pofx.core import Decodes, Scores
from pofx.data import toys
from pofx.findings import Draws, Row, mean

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Scores,)
kinds = frozenset({"images", "tokens", "vectors", "sequences"})

#: Examples without `full`, tokens of a text, and a bound's importance samples without it and with it.
SOME, TOKENS, QUICK, SAMPLES = 1000, 1 << 19, 500, 5000
#: Batches that are scored at once where what is exact is an integral over codes, which costs nearly the same for one example.
INTEGRATED = 8
#: Grey levels in use at which a table of frequencies has an advantage that a reader must know of.
FEW_LEVELS, LOOKED_AT = 64, 10_000


def measure(subject: "Subject") -> Iterator[Row]:
    """Bits per dimension or nats per token first, then nats per example; densities in units of the source."""
    model = cast(Scores, subject.model)
    first = model.log_prob(examples.first(subject.held, 1, subject.model.window).x.to(subject.model.device))
    limit = None if subject.full else SOME if first.space != "tokens" else max(1, TOKENS // (subject.model.window or 1))
    nats = _exact(subject, limit) if first.kind == "exact" else None
    bound, samples = nats is None, first.samples
    if nats is None:
        # A bound rises with its importance samples: the number that papers quote takes 5,000.
        knobs: dict[str, Any] = {}
        if "samples" in inspect.signature(model.log_prob).parameters:
            samples = knobs["samples"] = SAMPLES if subject.full else QUICK
        # Without labels, here and above: log p(x), which the baselines give too.
        nats = [-model.log_prob(batch.x, **knobs).nats.cpu().to(torch.float64) for batch in subject.batches(limit)]
    trivial = baselines.fit(first.space, subject.model.spec, subject.train.train)
    codec, density = subject.train.codec, first.space == "density"
    truth = toys.log_density(subject.dataset.source) if density else None
    lengths: list[Tensor] = []
    theirs: dict[str, list[Tensor]] = {name: [] for name in trivial}
    floors: list[Tensor] = []
    for batch in subject.batches(limit):
        lengths.append(torch.full((len(batch.x),), math.prod(batch.x.shape[1:]), dtype=torch.float64))
        for name, score in trivial.items():
            theirs[name].append(-score(batch.x))
        if truth is not None:
            floors.append(-torch.from_numpy(truth(codec.show(batch.x))))
    mine, length = torch.cat(nats), torch.cat(lengths)
    shift = codec.log_jacobian() if density else 0.0
    mine, others = mine - shift, {name: torch.cat(parts) - shift for name, parts in theirs.items()}
    # A bound falls with its importance samples, so that bounds of several numbers of them are not ranked together.
    space = first.space + (f", bound with K = {samples:,}" if bound and samples else ", bound" if bound else "")
    notes = ["upper bound" if bound else "exact"]
    if density:
        notes.append("in units of the source")
    if first.space == "binary" and subject.held.bits == 1:
        notes.append(f"one fixed binarisation, {subject.held.draw_hash()}; real: the entropy of the drawn bits themselves")
    if first.space == "8-bit" and (used := len(subject.train.train.x[:LOOKED_AT].unique())) <= FEW_LEVELS:
        notes.append(f"only {used} of the 256 grey levels occur: a histogram spends nothing on the others, a smooth likelihood must")
    if truth is not None:
        notes.append("real: the true density")
    if first.space == "tokens" and float(length.sum()) < len(subject.held):
        notes.append(f"{len(mine):,} windows drawn by a seed stand for the whole part, which --full reads")
    value, error, draws = mean(mine.numpy())
    row = Row(
        about="likelihood",
        name="negative log-likelihood",
        unit="nats per window" if first.space == "tokens" else "nats per example",
        model=value,
        error=error,
        draws=draws,
        baselines={name: float(values.mean()) for name, values in others.items()},
        n=len(mine),
        floor=float(torch.cat(floors).mean()) if floors else subject.held.entropy() if first.space == "binary" else None,
        # Windows of other lengths give their first tokens other shares.
        space=f"{space}, windows of {subject.model.window}" if first.space == "tokens" else space,
        note="; ".join(notes),
    )
    if first.space not in ("tokens", "8-bit"):
        yield row
        return
    unit = 1.0 if first.space == "tokens" else math.log(2)
    total = float(length.sum()) * unit
    ratio = float(mine.sum()) / total
    # A ratio of sums: windows differ in length.
    residual = Draws("examples", (ratio + (mine - ratio * unit * length) * len(mine) / total).numpy())
    yield dataclasses.replace(
        row,
        unit="nats per token" if first.space == "tokens" else "bits per dimension",
        model=ratio,
        error=residual.error() if len(mine) > 1 else None,
        draws=residual,
        baselines={name: float(values.sum()) / total for name, values in others.items()},
        n=int(length.sum()) if first.space == "tokens" else len(mine),
        space=space,
        note="; ".join([*notes, *([f"windows of {subject.model.window}, empty context at each start"] if first.space == "tokens" else [])]),
    )
    yield row


def _exact(subject: "Subject", limit: int | None) -> list[Tensor] | None:
    """-log p(x) of each example; None where it is a bound for some of them."""
    nats, batches = [], subject.batches(limit)
    at_once = INTEGRATED if Decodes in subject.model.capabilities else 1
    while group := [batch.x for batch in itertools.islice(batches, at_once)]:
        found = cast(Scores, subject.model).log_prob(torch.cat(group))
        if found.kind != "exact":
            return None
        nats.append(-found.nats.cpu().to(torch.float64))
    return nats
