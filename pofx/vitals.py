"""Signals of a game while it is played: what the judging network says, how far gradients reach, how samples lie among data.

A *look* turns the present state of a training into a few numbers, whose names are `SIGNALS`; `pofx.health` reads them.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from pofx import examples, features
from pofx.core import Batch, Judges, Model, Noise, Player, Samples, mix
from pofx.nn.labels import absent

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset

JUDGED, WATCHED = 256, 512
"""Training, held-out and generated examples that are judged, each; samples, and training examples that they are compared with."""
BANK, FITTED = 1000, 500
"""Training examples among which samples are looked for, and as many of them as features are fitted to."""
MOVES = 64
"""Moves of a player whose gradients are remembered."""
SPACING, EXAMPLES = 200, 19_200
"""Moves between two looks, and examples in them, at least: what a look costs must not be felt."""
NEAR = 5
"""The neighbour that a real example's neighbourhood reaches to."""
SAME = 0.1
"""Two samples nearer than this share of the usual distance between neighbours are the same."""
COPY = 0.01
"""Share of real examples that may look like copies of another one."""

SIGNALS = (
    "step", "progress", "real_logit", "held_logit", "fake_logit", "spread", "told", "told_held", "seen", "seen_error",
    "judge_gradient", "maker_gradient", "diversity", "duplicates", "coverage", "neighbours", "distance", "copies",
)  # fmt: skip
"""step, progress: when.

Of the networks as they are: real_logit, held_logit, fake_logit, mean D(x) of training, held-out and generated examples; spread,
standard deviation of logits within the three groups; told, P(D(train) > D(generated)); told_held, P(D(held-out) > D(generated));
seen, P(D(train) > D(held-out)), and seen_error, its standard error where it is 1/2; judge_gradient, maker_gradient, median norms
of the gradients of the players that move what judges, and of all others.

Of samples of the averaged weights, in features: diversity, mean distance of pairs in that of real pairs; duplicates, share that has
a twin; coverage, share of real examples with a sample in their neighbourhood; neighbours, leave-one-out accuracy of the nearest
neighbour at telling them from real ones; distance, Fréchet distance in variances of the data; copies, share that is nearer to one
training example than to any other as 1 % of real ones are.

NaN where there is none."""


class Fixed(Noise):
    """The same random numbers again after each `again`, drawn once."""

    def __init__(self, seed: int, n: int, *, first: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(seed, n, first=first, device=device)
        self._kept: list[Tensor] = []

    def again(self) -> "Fixed":
        """From the first request on."""
        self._calls = 0
        return self

    def _draw(self, fill: Callable[[torch.Generator], Tensor], shape: tuple[int, ...]) -> Tensor:
        if self._calls == len(self._kept):
            self._kept.append(super()._draw(fill, shape))
        else:
            self._calls += 1
        return self._kept[self._calls - 1].clone()


class Vitals:
    """Takes the signals of one training; what it remembers is in `state`.

    Arguments:
        model: that is trained. average: its averaged weights, which samples are drawn from. size: of a batch.
    """

    def __init__(self, model: Model, average: Model, players: Sequence[Player], dataset: "Dataset", *, size: int, seed: int) -> None:
        self.model, self.average, self.dataset, self.size = model, average, dataset, size
        self.judges = _judging(model, players, dataset.train.batch(torch.arange(1), device=model.device))
        self.gradients = torch.full((len(players), MOVES), torch.nan, device=model.device)
        self.records = torch.zeros(0, len(SIGNALS), dtype=torch.float64)
        # Some at a time: a whole sample of large images need not fit into memory.
        starts = range(0, WATCHED, examples.PART)
        self.noise = [Fixed(mix(seed, "vitals"), examples.PART, first=start, device=model.device) for start in starts]
        self._real: _Real | None = None

    @classmethod
    def of(cls, model: Model, *others: Any, **more: Any) -> "Vitals | None":
        """Those of a model that judges and samples; None of any other, and of data that are too few to have neighbourhoods."""
        return cls(model, *others, **more) if {Judges, Samples} <= model.capabilities and len(others[2].train) > 2 * NEAR else None

    def gradient(self, player: int, move: int, norm: Tensor) -> None:
        """Remembers the norm of a player's gradients at its move; no device is waited for."""
        self.gradients[player, move % MOVES] = norm

    @property
    def last(self) -> int:
        """The move of the last look, 0 before the first."""
        return int(self.records[-1, 0]) if len(self.records) else 0

    def due(self, step: int) -> bool:
        """Whether enough was done since the last look for its cost not to be felt."""
        since = step - self.last
        return since >= SPACING and since * self.size >= EXAMPLES

    def state(self) -> dict[str, Tensor]:
        """What a later process needs to go on as this one would."""
        return {"gradients": self.gradients, "records": self.records}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave; nothing where a checkpoint holds none."""
        if state:
            self.gradients.copy_(state["gradients"])
            self.records = state["records"].clone()

    def history(self) -> list[dict[str, float]]:
        """Every look so far."""
        return [dict(zip(SIGNALS, row, strict=True)) for row in self.records.tolist()]

    @torch.no_grad()
    def look(self, step: int, progress: float) -> dict[str, float]:
        """The signals now, after `step` moves and this share of the budget, which are also kept."""
        found = {"step": float(step), "progress": progress, **self.game(), **self._samples()}
        row = torch.tensor([found[name] for name in SIGNALS], dtype=torch.float64)
        self.records = torch.cat((self.records, row[None]))
        return found

    @torch.no_grad()
    def game(self) -> dict[str, float]:
        """The signals of the networks as they are this moment, without those of the averaged ones; nothing is kept."""
        real = self._watched
        with examples.asking(self.model):
            logits = {
                name: self._judged(x, real.labels(self.model, name))
                for name, x in (("real", real.x), ("held", real.held), ("fake", self._drawn(self.model, JUDGED)))
                if x is not None
            }
        told = {"real_logit": logits["real"], "held_logit": logits.get("held"), "fake_logit": logits["fake"]}
        centred = torch.cat([group - group.mean() for group in logits.values()])
        judge = [index in self.judges for index in range(len(self.gradients))]
        norms = self.gradients.double().cpu()
        return {
            **{name: torch.nan if group is None else float(group.mean()) for name, group in told.items()},
            "spread": float(centred.square().mean().sqrt()),
            "told": _above(logits["real"], logits["fake"]),
            "told_held": _above(logits.get("held"), logits["fake"]),
            "seen": _above(logits["real"], logits.get("held")),
            "seen_error": math.sqrt((1 / len(logits["real"]) + 1 / len(logits["held"])) / 12) if "held" in logits else math.nan,
            "judge_gradient": _median(norms[torch.tensor(judge)]),
            "maker_gradient": _median(norms[~torch.tensor(judge)]),
        }

    @property
    def _watched(self) -> "_Real":
        if self._real is None:
            self._real = _Real(self.dataset, self.model.device)
        return self._real

    def _drawn(self, model: Model, n: int) -> Tensor:
        """The first n samples, in parts that equal the whole."""
        label = self._watched.labels(model, "fake")
        labels = itertools.repeat(None) if label is None else label.split(examples.PART)
        parts = zip(self.noise[: n // examples.PART], labels, strict=False)
        return torch.cat([cast(Samples, model).sample(noise.n, noise=noise.again(), label=y) for noise, y in parts])

    def _judged(self, x: Tensor, label: Tensor | None) -> Float[Tensor, " n"]:
        labels = itertools.repeat(None) if label is None else label[: len(x)].split(examples.PART)
        parts = zip(x.split(examples.PART), labels, strict=False)
        return torch.cat([cast(Judges, self.model).judge(part, label=y) for part, y in parts]).double().cpu()

    def _samples(self) -> dict[str, float]:
        """How samples of the averaged weights lie among training examples."""
        with examples.asking(self.average):
            drawn = self._drawn(self.average, WATCHED)
        return self._watched.compare(drawn) if bool(torch.isfinite(drawn).all()) else dict.fromkeys(_Real.COMPARED, torch.nan)


class _Real:
    """Examples that are looked at each time, with what is known of them once and for all."""

    COMPARED = ("diversity", "duplicates", "coverage", "neighbours", "distance", "copies")

    def __init__(self, dataset: "Dataset", device: torch.device) -> None:
        bank = features.training(dataset, examples=BANK)
        watched = slice(WATCHED)
        self.x = bank.x[:JUDGED].to(device)
        self.label = None if bank.label is None else _repeated(bank.label, WATCHED).to(device)
        held = None if dataset.validation is None else examples.some(dataset.validation, JUDGED)
        self.held = None if held is None else held.x.to(device)
        self.held_label = None if held is None or held.label is None else held.label.to(device)
        self.features = features.quick(dataset, examples=FITTED)
        self.bank = self._seen(bank.x)
        self.rows = self.bank[watched]
        real = torch.cdist(self.rows, self.rows)
        self.pairs = float(real.mean())
        own = real.fill_diagonal_(torch.inf)
        self.nearest = own.min(1).values
        self.radius = own.kthvalue(min(NEAR, len(own) - 1), 1).values if len(own) > 1 else self.nearest
        self.usual = float(self.nearest.median())
        among = torch.cdist(self.rows, self.bank)
        among[torch.arange(len(self.rows)), torch.arange(len(self.rows))] = torch.inf
        self.variance = float(self.bank.var(0).sum())
        self.copy = torch.quantile(_closeness(among), COPY)

    def _seen(self, x: Tensor) -> Float[Tensor, "n features"]:
        return torch.from_numpy(self.features(x))

    def labels(self, model: Model, which: str) -> Tensor | None:
        """Labels of the watched real examples, of the held-out ones, or those that samples are asked for; None where the model
        takes none, or one is missing."""
        label = {"real": self.label, "held": self.held_label, "fake": self.label}[which]
        label = examples.conditions(model, label)
        return None if label is not None and bool(absent(label).any()) else label

    def compare(self, drawn: Tensor) -> dict[str, float]:
        """The signals of samples."""
        from pofx.metrics.frechet import frechet_distance

        fake = self._seen(drawn)
        # As many as there are real ones: neighbours are nearer among more.
        some = fake[: len(self.rows)]
        own, across = torch.cdist(some, some), torch.cdist(self.rows, some)
        pairs = float(own.mean())
        own.fill_diagonal_(torch.inf)
        nearest = own.min(1).values
        among = torch.cdist(fake, self.bank)
        # A tie is a copy: its neighbour is of the other kind.
        right = torch.cat((self.nearest < across.min(1).values, nearest < across.min(0).values))
        return {
            "diversity": pairs / self.pairs if self.pairs else torch.nan,
            "duplicates": float((nearest < SAME * self.usual).double().mean()),
            "coverage": float((across < self.radius[:, None]).any(1).double().mean()),
            "neighbours": float(right.double().mean()),
            "distance": frechet_distance(self.bank.numpy(), fake.numpy()) / self.variance if self.variance else torch.nan,
            "copies": float((_closeness(among) <= self.copy).double().mean()),
        }


def _repeated(label: Tensor, n: int) -> Tensor:
    """n labels; those of few examples come again."""
    return label[torch.arange(n) % len(label)]


def _closeness(distance: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Distance to the nearest over that to the next one; 1 where there is no next one."""
    if distance.shape[1] < 2:
        return torch.ones(len(distance), dtype=distance.dtype)
    two = distance.topk(2, 1, largest=False).values
    return torch.where(two[:, 1] > 0, two[:, 0] / two[:, 1], 1.0)


def _above(a: Tensor | None, b: Tensor | None) -> float:
    """P(a > b) of independent draws, ties counting one half."""
    if a is None or b is None:
        return torch.nan
    return float((a[:, None] > b).double().mean() + 0.5 * (a[:, None] == b).double().mean())


def _median(norms: Tensor) -> float:
    """Of those that there are; NaN where there are none."""
    return float(norms.flatten().nanmedian()) if norms.numel() else torch.nan


def _judging(model: Model, players: Sequence[Player], batch: Batch) -> frozenset[int]:
    """The places of the players that move a parameter which D(x) is computed with."""
    parameters = list(model.parameters())
    before = [parameter.requires_grad for parameter in parameters]
    with examples.asking(model), torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        logit = cast(Judges, model).judge(batch.x)
        found = torch.autograd.grad(logit.sum(), parameters, allow_unused=True) if logit.requires_grad else ()
        for parameter, needed in zip(parameters, before, strict=True):
            parameter.requires_grad_(needed)
    used = {id(parameter) for parameter, gradient in zip(parameters, found, strict=False) if gradient is not None}
    return frozenset(i for i, player in enumerate(players) if any(id(parameter) in used for _, parameter in player.parameters()))
