"""Labels: how well a classifier names them, how well samples agree with those that were asked for, which classes are missing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int

from pofx import features as extractors
from pofx import intervals
from pofx.core import Classes, Classifies, Samples
from pofx.findings import Draws, Flag, Row, mean, share

if TYPE_CHECKING:
    from torch import Tensor

    from pofx.subject import Subject

needs = ()
kinds = frozenset({"images", "vectors", "sequences"})

K = 5
#: A class drawn less often than this share of real data's is missing, where chance alone would make one of all classes
#: so rare less often than `LEVEL`.
RARE, LEVEL = 0.05, 0.01
#: Labels are ignored by samples that agree with them by less than this share of what lies between chance and real data,
#: as far as the judge itself is better than chance by `TELLS`.
IGNORED, TELLS = 0.2, 0.1
#: Classes that are named in a sentence.
NAMED = 5


def counts(label: Int[np.ndarray, " n"], classes: int) -> Int[np.ndarray, " classes"]:
    """How many examples each class has; labels that are missing do not count."""
    return np.bincount(label[label >= 0], minlength=classes)


def shares(label: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """How often each class occurs, as shares of 1."""
    found = counts(label, classes)
    return found / max(1, found.sum())


def chance(asked: Int[np.ndarray, " n"], named: Int[np.ndarray, " n"], classes: int) -> float:
    """The agreement expected if the labels asked for were shuffled: sum over classes of the product of their shares."""
    return float(shares(asked, classes) @ shares(named, classes))


def total_variation(real: Float[np.ndarray, " classes"], fake: Float[np.ndarray, " classes"]) -> float:
    """1/2 sum |p - q|: the share of samples that would have to be of another class. 0 for equal shares, 1 for disjoint ones."""
    return float(np.abs(real - fake).sum() / 2)


def missing_classes(real: Int[np.ndarray, " classes"], fake: Int[np.ndarray, " classes"]) -> list[int]:
    """The classes that samples show less than a twentieth as often as real data, and more rarely than chance explains.

    Of r real and f generated examples of an equally frequent class, f is binomial in r + f; the level is shared by all
    classes, so that models without a fault have one named once in a hundred times at most.

    Arguments:
        real, fake: examples of each class.
    """
    from scipy.stats import binom

    n, m = real.sum(), fake.sum()
    rare = fake / max(1, m) < RARE * real / max(1, n)
    return [int(i) for i in np.flatnonzero(rare & (binom.cdf(fake, real + fake, m / max(1, n + m)) * len(real) < LEVEL))]


def class_coverage(
    real: Float[np.ndarray, "n features"],
    label: Int[np.ndarray, " n"],
    fake: Float[np.ndarray, "m features"],
    asked: Int[np.ndarray, " m"],
    *,
    k: int = K,
) -> dict[int, float]:
    """For each class, the share of its real examples that have a sample of the class within reach of their k-th neighbour.

    Both sets of a class are cut to equal size. Classes with k examples or fewer in either set are left out.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020), https://arxiv.org/abs/2002.09797
    """
    from pofx.metrics.neighbourhoods import prdc

    found = {}
    for i in np.unique(label[label >= 0]):
        mine, theirs = real[label == i], fake[asked == i]
        size = min(len(mine), len(theirs))
        if size > k:
            found[int(i)] = prdc(mine[:size], theirs[:size], k)["coverage"]
    return found


def measure(subject: "Subject") -> Iterator[Row | Flag]:
    """By what the model can do: naming classes, drawing those that were asked for, drawing all of them."""
    meaning = subject.train.spec.label
    if not isinstance(meaning, Classes):
        return
    if Classifies in subject.model.capabilities and subject.held.label is not None:
        yield from _named(subject, meaning)
    if Samples in subject.model.capabilities and len(meaning.names) > 1:
        judge = _Judge(subject)
        if subject.asked is None:
            yield from _shown(subject, meaning, judge)
        else:
            yield from _asked(subject, meaning, judge)


def _named(subject: "Subject", meaning: Classes) -> Iterator[Row]:
    """Accuracy beside the most frequent class, cross-entropy beside the entropy of the labels."""
    logits, labels = [], []
    for batch in subject.batches():
        assert batch.label is not None
        known = batch.label >= 0
        logits.append(cast(Classifies, subject.model).classify(batch.x[known]).cpu().to(torch.float64))
        labels.append(batch.label[known].cpu())
    logit, label = torch.cat(logits), torch.cat(labels)
    if not len(label):
        return
    counts = torch.zeros(len(meaning.names), dtype=torch.float64)
    for batch in subject.train.train.batches(extractors.PART):
        assert batch.label is not None
        counts += torch.bincount(batch.label[batch.label >= 0], minlength=len(counts))
    log_p = ((counts + 1) / (counts + 1).sum()).log()
    value, error, draws = share((logit.argmax(1) == label).numpy())
    often = int(counts.argmax())
    yield Row(
        about="labels", name="accuracy", unit="share", model=value, error=error, draws=draws, n=len(label), better="higher",
        baselines={f"always {meaning.names[often]}": float((label == often).to(torch.float64).mean())},
    )  # fmt: skip
    nats = torch.nn.functional.cross_entropy(logit, label, reduction="none")
    value, error, draws = mean(nats.numpy())
    yield Row(
        about="labels", name="cross-entropy of labels", unit="nats per example", model=value, error=error, draws=draws, n=len(label),
        baselines={"frequency of labels": float(-log_p[label].mean())},
    )  # fmt: skip


class _Judge:
    """A classifier that names the class of samples and of real examples."""

    def __init__(self, subject: "Subject") -> None:
        self._model, self.accuracy = extractors.classifier(subject.train)

    def __call__(self, x: "Tensor") -> Int[np.ndarray, " n"]:
        return torch.cat([self._model.classify(part).argmax(1) for part in x.cpu().split(extractors.PART)]).numpy()

    @property
    def note(self) -> str:
        """What it is."""
        right = f" that is right on {self.accuracy:.1%} of held-out examples" if np.isfinite(self.accuracy) else ""
        return f"by a classifier{right}"


def _shown(subject: "Subject", meaning: Classes, judge: _Judge) -> Iterator[Row | Flag]:
    """Which classes an unconditional model draws; real examples are named by the same judge, mistakes and all."""
    classes, n = len(meaning.names), subject.n
    real, fake, other, trivial = (judge(x) for x in (subject.real.x, subject.drawn, subject.other.x, subject.gaussian))

    def variation(a: np.ndarray, b: np.ndarray) -> float:
        return total_variation(shares(a, classes), shares(b, classes))

    spread = intervals.distance(variation, real, fake, other)
    note = f"real shares are those of held-out examples; both {judge.note}"
    yield Row(
        about="labels", name="total variation of class shares", unit="0 for equal shares, 1 for disjoint", model=variation(real, fake),
        error=spread.error, draws=spread.draws, n=n, baselines={"gaussian": variation(real, trivial)}, floor=spread.floor, note=note,
    )  # fmt: skip
    lost, by_trivial, by_others = (missing_classes(counts(real, classes), counts(x, classes)) for x in (fake, trivial, other))
    yield Row(
        about="labels", name="missing classes", unit=f"of {classes}", model=len(lost), error=None, n=n,
        baselines={"gaussian": len(by_trivial)}, floor=len(by_others),
        note=f"drawn less than {RARE:g} times as often as real, and not by chance; {judge.note}",
    )  # fmt: skip
    if lost:
        truth, drawn = shares(real, classes), shares(fake, classes)
        seen = ", ".join(f"{meaning.names[i]} ({drawn[i]:.1%} of samples, {truth[i]:.1%} of real data)" for i in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        yield Flag(
            check="missing modes",
            sentence=f"hardly any sample is of {seen}{more}: look at samples; train longer, with another seed or a lower learning rate",
        )


def _asked(subject: "Subject", meaning: Classes, judge: _Judge) -> Iterator[Row | Flag]:
    """Whether samples are of the class that was asked for, and whether they show all of it."""
    wanted = subject.asked
    assert wanted is not None
    asked, classes = wanted.numpy(), len(meaning.names)
    named, truth = judge(subject.drawn), cast("Tensor", subject.real.label).numpy()
    known = truth >= 0
    value, error, draws = share(named == asked)
    floor, by_chance = float((judge(subject.real.x) == truth)[known].mean()), chance(asked, named, classes)
    yield Row(
        about="labels", name="agreement with the label asked for", unit="share", model=value, error=error, draws=draws, n=len(asked),
        baselines={"labels shuffled": by_chance}, better="higher", floor=floor, note=judge.note,
    )  # fmt: skip
    if floor - by_chance > TELLS and value - by_chance < IGNORED * (floor - by_chance):
        yield Flag(
            check="ignored labels",
            sentence=f"{value:.0%} of the samples are of the class that was asked for, {by_chance:.0%} would be by chance and {floor:.0%} of "
            "real examples are: train longer, or give the label more weight",
        )
    yield from _covered(subject, meaning, asked, truth)


def _covered(subject: "Subject", meaning: Classes, asked: np.ndarray, truth: np.ndarray) -> Iterator[Row]:
    """The mean class and the worst one."""
    real, fake, other, trivial = (subject.seen(which) for which in ("real", "drawn", "other", "gaussian"))
    known = np.flatnonzero(truth >= 0)
    mine = class_coverage(real, truth, fake, asked)
    if not mine:
        return
    floor = class_coverage(real, truth, other, cast("Tensor", subject.other.label).numpy())
    theirs = class_coverage(real, truth, trivial, asked)
    rounds: list[dict[int, float]] = []
    for i, j in intervals.halves(len(known), len(fake), intervals.FEW_ROUNDS):
        rounds.append(class_coverage(real[known[i]], truth[known[i]], fake[j], asked[j]))
    worst = min(mine, key=lambda i: mine[i])
    fields: dict[str, Any] = {
        "about": "labels", "unit": f"k = {K}", "n": len(asked), "better": "higher", "features": subject.features.name,
    }  # fmt: skip
    note = (
        f"share of a class's real data with a sample of that class in their own neighbourhood; {len(mine)} of {len(meaning.names)} classes"
    )
    for name, of, extra in (
        ("coverage of the mean class", lambda found: float(np.mean(list(found.values()))), ""),
        ("coverage of the worst class", lambda found: min(found.values()), f"; it is {meaning.names[worst]}"),
    ):
        values = np.array([of(found) for found in rounds if found])
        draws = Draws("subsets", values)
        yield Row(
            **fields, name=name, model=of(mine), error=draws.error() if len(values) > 1 else None, draws=draws,
            baselines={"gaussian": of(theirs)}, floor=of(floor) if floor else None, note=note + extra,
        )  # fmt: skip
