"""What is wrong with a game, read from the signals that `pofx.vitals` has taken: for each failure one sentence, or none.

Every detector is a pure function of the records, oldest first; what it names was so in each of the last few looks, after the
first part of the budget. The thresholds were set on the part `tuning` of `benchmarks/health.py`, whose part `scoring` measures
them on other data.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median

Record = Mapping[str, float]

WINS, OVERFITS, DEAD = "discriminator wins", "discriminator overfits", "discriminator dead"
DIVERGES, COLLAPSES, OSCILLATES, COPIES = "divergence", "mode collapse", "oscillation", "memorisation"
NAMES = (WINS, OVERFITS, DEAD, DIVERGES, COLLAPSES, OSCILLATES, COPIES)

YOUNG = 0.15
"""Share of the budget in which a game may still find its feet."""
LOOKS, FEW = 3, 2
"""Looks in a row that must agree; fewer are enough at the end of a training, since no more will come."""
LOST, STANDS, LAGS, FOREIGN = 0.98, 0.8, 0.5, 0.9
"""Accuracy of the discriminator at pairs from which on the generator is lost, if the distance of its samples stays above this share of
what it was a few looks ago, and when the game was half as old, or above this one while most of the data is not covered, and nearest
neighbours in plain features tell them from real ones so well: a sharp discriminator of good samples is no failure."""
AHEAD, UNLIKE, SPARSE, GAINED = 0.85, 0.7, 0.8, 0.1
"""Accuracy of a discriminator that is far ahead, if nearest neighbours in plain features tell so much as well, the samples cover less than
this share of the real examples, and that share has grown by less than the last number over the last few looks, and since the game was
half as old, while their distance has not fallen below `LAGS` of what it was."""
VANISHED = 1e-3
"""Share of its usual norm below which a generator's gradient has vanished."""
KNOWN, GAP, SURE, PLAIN = 0.62, 0.5, 3.0, 0.85
"""P(D(train) > D(held-out)) from which on a discriminator knows its examples by heart, if it also is so many standard errors above
1/2, and the gap between the logits of both is this share of that between held-out and generated examples; from the last one on a look less
is enough."""
BLIND, APART, MUTE, SILENT, ODD = 0.6, 0.95, 0.01, 0.001, 0.75
"""Accuracy of a blind discriminator at pairs, in the mean of a few looks since it may swing, while nearest neighbours in plain features
tell real from generated so well; a gap between logits, and a spread of them, that say nothing where they tell as much as `FOREIGN`, and
where they tell so much: at the end of a good game on a thin curve logits are a few thousandths, and neighbours tell 0.78."""
LIMIT, STEEP, TIMES = 200.0, 1e4, 50.0
"""A gap between logits that no probability needs, whose common height means nothing in games of differences; a norm of gradients that no
game needs; and how many times their usual spread, or the usual norm of gradients, is an explosion."""
MEAN, WIDE, AWAY = 1.0, 1.25, 10.0
"""Distance of samples that are all the data's mean; diversity above which they do not gather there, or anywhere; a distance that needs no
other sign."""
NARROW, TWINS, THIN, BARE, REMOTE, HOLLOW = 0.5, 0.3, 0.4, 0.05, 0.5, 0.15
"""Diversity below which modes are lost; share of twins above which, at this coverage at most; coverage below which; distance at which,
with that coverage, a game that stands has lost them; coverage below which any game has that is farther from the data than their mean. A
generator that draws its modes too narrow for a while has twins as well, and leaves none out."""
WORSE, FAR = 1.5, 0.02
"""A distance is worse than its best by this factor, and by this share of the data's variance."""
COPIED = 0.2
"""Share of samples that are suspiciously near to one training example."""

_ADVICE = {
    WINS: "strengthen the penalty (such as gamma), or give the discriminator a smaller learning rate or fewer moves",
    OVERFITS: "give it more examples, a stronger penalty (such as gamma), a smaller network, or a shorter training",
    DEAD: "give the discriminator a larger learning rate or more moves, a weaker penalty where there is one, or the generator a smaller learning rate",
    DIVERGES: "take smaller learning rates or a stronger penalty (such as gamma)",
    COLLAPSES: "strengthen the penalty (such as gamma), slow the generator down, check that its noise reaches it, or take a larger batch",
    OSCILLATES: "take smaller learning rates that fall to zero, or a stronger penalty (such as gamma)",
    COPIES: "give it more examples, train for less long, or take a smaller generator",
}


_EXPLODE = {
    "spread": "the spread of logits",
    "judge_gradient": "the discriminator's gradient",
    "maker_gradient": "the generator's gradient",
}


def diagnose(records: Sequence[Record], rollbacks: Sequence[str] = ()) -> dict[str, str]:
    """Failure -> one sentence: what was seen, and what to try.

    Arguments:
        records: the signals of each look. rollbacks: what was seen each time that training went back.
    """
    found = {name: seen for name, detect in _DETECTORS.items() if (seen := detect(records)) is not None}
    if explosion(records):
        # What else is seen in a game that explodes follows from it.
        found = {DIVERGES: found[DIVERGES]}
    elif rollbacks:
        found[DIVERGES] = f"{rollbacks[-1]}, with {0.5 ** len(rollbacks):g} of its learning rate"
    return {name: f"{seen}: {_ADVICE[name]}" for name, seen in found.items()}


def _last(records: Sequence[Record], looks: int = LOOKS) -> Sequence[Record]:
    """The last few looks after the young part of the training; none where they are too few."""
    grown = [record for record in records if record["progress"] >= YOUNG]
    if grown and grown[-1]["progress"] >= 1:
        looks = min(looks, FEW)
    return grown[-looks:] if len(grown) >= looks else ()


def _always(records: Sequence[Record], holds: Callable[[Record], bool], looks: int = LOOKS) -> bool:
    """Whether something holds in each of the last few looks. Comparisons with a missing signal are false."""
    last = _last(records, looks)
    return bool(last) and all(holds(record) for record in last)


def _half(records: Sequence[Record]) -> Record:
    """The first look after which the game had half of its present age: in a long training a few looks see little of slow progress."""
    return next(record for record in records if record["progress"] >= records[-1]["progress"] / 2)


def _stands(records: Sequence[Record], share: float = STANDS) -> bool:
    """Whether samples came hardly nearer to the data over the last few looks, and over the second half of the game so far."""
    last = _last(records)
    return bool(last) and all(last[-1]["distance"] >= share * before["distance"] for before in (last[0], _half(records)))


def _idles(records: Sequence[Record]) -> bool:
    """Whether samples cover hardly more of the data than some looks ago, and are not much nearer to it."""
    now, before = records[-1], _last(records)[0]
    gained = any(now["coverage"] >= past["coverage"] + GAINED for past in (before, _half(records)))
    return now["distance"] >= LAGS * before["distance"] and not gained


def _wins(records: Sequence[Record]) -> str | None:
    now = records[-1] if records else {}
    if _always(records, lambda r: r["told"] >= LOST and r["neighbours"] >= FOREIGN):
        thin = _always(records, lambda r: r["coverage"] < THIN)
        if _stands(records, LAGS if thin else STANDS):
            return (
                f"the discriminator tells {now['told']:.1%} of pairs of a real and a generated example apart, and samples "
                f"{'hardly' if thin else 'no longer'} come nearer to the data, so that the generator has little to learn from"
            )
    ahead = _always(records, lambda r: r["told"] >= AHEAD and r["neighbours"] >= UNLIKE and r["coverage"] < SPARSE)
    if ahead and _idles(records):
        return (
            f"the discriminator tells {now['told']:.0%} of pairs of a real and a generated example apart, and the share of real examples "
            f"with a sample in their neighbourhood stays near {now['coverage']:.0%}, so that the generator learns little from it"
        )
    usual = median([r["maker_gradient"] for r in records]) if records else math.nan
    if _always(records, lambda r: r["maker_gradient"] < VANISHED * usual):
        return f"the generator's gradient has vanished, to {now['maker_gradient']:.1g} from {usual:.1g}"
    return None


def _overfits(records: Sequence[Record]) -> str | None:
    def holds(r: Record) -> bool:
        known = r["seen"] >= KNOWN and r["seen"] - SURE * r["seen_error"] > 0.5
        return known and r["real_logit"] - r["held_logit"] > GAP * (r["held_logit"] - r["fake_logit"])

    if not _always(records, holds) and not _always(records, lambda r: holds(r) and r["seen"] >= PLAIN, LOOKS - 1):
        return None
    now = records[-1]
    return (
        f"the discriminator takes training examples for more real than held-out ones in {now['seen']:.0%} of pairs (mean logits "
        f"{now['real_logit']:.2g} of training, {now['held_logit']:.2g} of held-out, {now['fake_logit']:.2g} of generated examples)"
    )


def _dead(records: Sequence[Record]) -> str | None:
    last = _last(records)
    if not last:
        return None
    now, told = last[-1], mean(r["told"] for r in last)

    def mute(r: Record) -> bool:
        loudest = max(abs(r["real_logit"] - r["fake_logit"]), r["spread"])
        return loudest < MUTE if r["neighbours"] >= FOREIGN else loudest < SILENT and r["neighbours"] >= ODD

    if _always(records, mute):
        return (
            f"the discriminator's logits of real and of generated examples are {abs(now['real_logit'] - now['fake_logit']):.1g} apart, "
            f"while nearest neighbours tell {now['neighbours']:.0%} of them, so that the generator learns from next to nothing"
        )
    if told > BLIND or not _always(records, lambda r: r["neighbours"] >= APART):
        return None
    return (
        f"the discriminator tells only {told:.0%} of pairs of a real and a generated example apart (over {len(last)} looks; spread of logits "
        f"{now['spread']:.2g}), while their nearest neighbours tell {now['neighbours']:.0%}, so that the generator learns from nothing"
    )


def divergence(records: Sequence[Record], now: Record) -> str | None:
    """What shows that a game diverges at this moment, against the looks before it."""
    signals = {name: now[name] for name in ("real_logit", "fake_logit", "spread", "judge_gradient", "maker_gradient")}
    if any(math.isinf(value) for value in signals.values()) or any(math.isnan(signals[name]) for name in ("fake_logit", "spread")):
        return "logits or gradients are no longer finite"
    apart = abs(now["real_logit"] - now["fake_logit"])
    if max(apart, now["spread"]) > LIMIT:
        return (
            f"logits have grown {apart:,.0f} apart between real and generated examples, with a spread of {now['spread']:,.0f} within them"
        )
    for name in ("judge_gradient", "maker_gradient"):
        if now[name] > STEEP:
            return f"{_EXPLODE[name]} has grown to {now[name]:,.0f}"
    if len(records) < LOOKS:
        return None
    for name, what in _EXPLODE.items():
        usual = median([record[name] for record in records])
        if now[name] > TIMES * usual and now[name] > 1.0:
            return f"{what} has grown to {now[name]:.3g}, {now[name] / usual:,.0f} times as much as usual"
    return None


def explosion(records: Sequence[Record]) -> str | None:
    """What the last look showed of a divergence against those before it."""
    return divergence(records[:-1], records[-1]) if records else None


def _diverges(records: Sequence[Record]) -> str | None:
    if seen := explosion(records):
        return seen
    if _always(records, lambda r: (r["distance"] > MEAN and r["diversity"] > WIDE) or r["distance"] > AWAY):
        now = records[-1]
        return (
            f"samples have run away from the data: their Fréchet distance is {now['distance']:,.3g} of the data's variance, that of a "
            f"single point at the mean is 1, and they differ from each other {now['diversity']:,.3g} times as much as real examples do"
        )
    return None


def _collapses(records: Sequence[Record]) -> str | None:
    now = records[-1] if records else {}
    if _always(records, lambda r: r["duplicates"] > TWINS and r["coverage"] < THIN):
        return (
            f"{now['duplicates']:.0%} of the samples have a twin among the others, and {now['coverage']:.0%} of the real examples a sample "
            "in their neighbourhood"
        )
    if _always(records, lambda r: r["diversity"] < NARROW):
        return f"samples differ from each other by {now['diversity']:.0%} of what real examples do"
    if _always(records, lambda r: r["coverage"] < HOLLOW and r["distance"] > MEAN):
        return (
            f"only {now['coverage']:.0%} of the real examples have a sample in their neighbourhood, and the samples' Fréchet distance is "
            f"{now['distance']:.3g} of the data's variance, that of a single point at the mean being 1"
        )
    if _always(records, lambda r: r["coverage"] < (THIN if r["distance"] > REMOTE else BARE)) and _stands(records):
        return (
            f"only {now['coverage']:.0%} of the real examples have a sample in their neighbourhood, and samples no longer come nearer to "
            "the data"
        )
    return None


def _oscillates(records: Sequence[Record]) -> str | None:
    last = _last(records)
    if not last:
        return None
    # A young game may be near by chance, and a distance of two moments too: samples of an untrained generator have the right spread.
    best = min((r for r in records if r["progress"] >= YOUNG), key=lambda r: r["distance"])
    for r in last:
        if r["distance"] <= max(WORSE * best["distance"], best["distance"] + FAR) or r["coverage"] >= best["coverage"]:
            return None
    return (
        f"samples were nearer to the data before: their Fréchet distance is {last[-1]['distance']:.2g} of the data's variance after "
        f"{best['distance']:.2g} at its best, over {len(last)} looks, and {last[-1]['coverage']:.0%} of the real examples have a sample in their "
        f"neighbourhood after {best['coverage']:.0%}"
    )


def _copies(records: Sequence[Record]) -> str | None:
    if not _always(records, lambda r: r["copies"] > COPIED):
        return None
    return (
        f"{records[-1]['copies']:.0%} of the samples are as near to one training example, and as far from all others, as 1 % of real "
        "examples are"
    )


_DETECTORS: dict[str, Callable[[Sequence[Record]], str | None]] = {
    WINS: _wins, OVERFITS: _overfits, DEAD: _dead, DIVERGES: _diverges, COLLAPSES: _collapses, OSCILLATES: _oscillates, COPIES: _copies,
}  # fmt: skip
