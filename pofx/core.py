"""The contract that everything else leans on: batches, data specs, losses, players, models, capabilities.

Training is a game of players. A model lists its players as data, each a loss and the modules it may move; the trainer
walks the list. An autoencoder, a VAE or an autoregressive model is a game of one player, a GAN of two. This module
imports nothing else of pofx, so it can be read first and alone.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn


class UsageError(ValueError):
    """What a person asked for cannot be done: the message is one sentence naming the thing and the way out."""


class TrainingError(RuntimeError):
    """Training cannot go on (a non-finite loss, a full disk); the last good checkpoint stays."""


# ---------------------------------------------------------------------------------------------------------------
# Randomness


def mix(*parts: int | str) -> int:
    """A 63-bit seed that is a hash of `parts`, so that neighbouring seeds, players and moves give unrelated streams."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """Random numbers for drawing: row i of the c-th request depends on (seed, i, c) alone.

    64 rows drawn at once and in eight parts of eight are therefore the same rows.

    Arguments:
        seed: the seed of the whole sample.
        n: how many rows this part has.
        first: the index of this part's first row in the whole sample.
    """

    def __init__(self, seed: int, n: int, *, first: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed, self.n, self.first, self.device = seed, n, first, torch.device(device)
        self._calls = 0

    def _draw(self, fill: Callable[[torch.Generator], Tensor], shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator()
        rows = [fill(generator.manual_seed(mix(self.seed, self.first + i, self._calls))) for i in range(self.n)]
        self._calls += 1
        return torch.stack(rows).to(self.device) if rows else torch.empty(0, *shape, device=self.device)

    def normal(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Standard normal numbers, one row of `shape` for each of the n rows."""
        return self._draw(lambda generator: torch.randn(shape, generator=generator), shape)

    def uniform(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Uniform numbers in [0, 1), one row of `shape` for each of the n rows."""
        return self._draw(lambda generator: torch.rand(shape, generator=generator), shape)

    def categorical(self, weights: Float[Tensor, "#n categories"]) -> Int64[Tensor, " n"]:
        """One draw a row from unnormalised non-negative `weights`, by inverting the cumulative sum in float64."""
        return pick(weights.expand(self.n, -1), self.uniform(1)[:, 0]).to(self.device)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """A category, int64 on the CPU, for each row of unnormalised non-negative weights (n, categories): where the random number of the
    row (n,), in [0, 1), falls in the cumulative sum in float64, on the CPU, where every machine has it. (No declared shapes: in
    tests their check would take as long as the draw of a pixel.)"""
    cumulative = weights.to("cpu", torch.float64).cumsum(-1).contiguous()
    # The number is below 1, so the target is below the total; symbols of weight 0 are never hit on the right.
    target = uniform.to("cpu", torch.float64)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_(max=weights.shape[-1] - 1)


# ---------------------------------------------------------------------------------------------------------------
# Precision: autocast is entered by the outermost networks and by nothing else (losses run in float32)

_compute_dtype: ContextVar[torch.dtype] = ContextVar("compute_dtype", default=torch.float32)


@contextlib.contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Within this context every `Network` computes in `dtype` (bfloat16 or float32)."""
    token = _compute_dtype.set(dtype)
    try:
        yield
    finally:
        _compute_dtype.reset(token)


class Network(nn.Module, ABC):
    """An outermost network: computes in the precision in force and always returns float32.

    A model's encoder, decoder, generator, discriminator are `Network`s; blocks inside them are plain modules.
    """

    @abstractmethod
    def compute(self, *inputs: Any) -> Tensor:
        """What `forward` of a plain module would be."""

    def forward(self, *inputs: Any) -> Float[Tensor, "..."]:
        """`compute` in the precision in force, as float32."""
        dtype = _compute_dtype.get()
        if dtype == torch.float32:
            return self.compute(*inputs)
        device = next(value.device.type for value in inputs if isinstance(value, Tensor))
        with torch.autocast(device, dtype=dtype):
            return self.compute(*inputs).float()


# ---------------------------------------------------------------------------------------------------------------
# Data as a model sees it


class Batch(NamedTuple):
    """Examples and, where the data has them, labels.

    x: images float32 (batch, channels, height, width) in [0, 1]; tokens int64 (batch, window); vectors float32 (batch,
       features) and sequences float32 (batch, time, features), standardised.
    label: classes int64 (batch,), -1 where missing; attributes int64 (batch, attributes), -1 where missing; values
       float32 (batch, values), NaN where missing.
    lane: int64 (batch,), the lane that each example is the next one of, where a model asked for lanes and the data have an
       order; None where examples stand alone.
    fresh: bool (batch,), where the lane starts anew, so that the example continues nothing; None without lanes.
    """

    x: Shaped[Tensor, "batch ..."]
    label: Shaped[Tensor, "batch ..."] | None = None
    lane: Int64[Tensor, " batch"] | None = None
    fresh: Bool[Tensor, " batch"] | None = None


@dataclasses.dataclass(frozen=True)
class Classes:
    """One of several classes."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Attributes:
    """Several yes-or-no attributes."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Values:
    """Several real numbers, in the source's units.

    mean, std: of each on the training rows, by which models bring them to one scale; empty: 0 and 1. Values of the same names are
    equal, whatever rows their scale was taken from.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...] = dataclasses.field(default=(), compare=False)
    std: tuple[float, ...] = dataclasses.field(default=(), compare=False)


Label = Classes | Attributes | Values
_LABELS: dict[str, type[Classes] | type[Attributes] | type[Values]] = {
    "classes": Classes, "attributes": Attributes, "values": Values,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Column:
    """Where a table's column stands in the vector: features [start, stop). `missing` is a 0/1 indicator that the number
    or integer column of the same name is empty in that row."""

    name: str
    kind: Literal["number", "integer", "category", "missing"]
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a model must know of the data; read from the data set, typed by nobody.

    kind: images | tokens | vectors | sequences.
    shape: of one example as a model sees it: (channels, height, width), (features,), (time, features); () for tokens.
    label: what the labels are, or None.
    size: the number of training examples, or of training tokens.
    vocabulary: the number of symbols (tokens only; the begin symbol lies outside).
    columns: the columns of a table in order; empty for plain vectors.
    bits: 8 for images of 256 levels, 1 for dynamically binarised ones, None for real-valued data.
    """

    kind: Literal["images", "tokens", "vectors", "sequences"]
    shape: tuple[int, ...]
    label: Label | None = None
    size: int = 0
    vocabulary: int = 0
    columns: tuple[Column, ...] = ()
    bits: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON-able values."""
        values = dataclasses.asdict(self)
        values["shape"] = list(self.shape)
        values["columns"] = [dataclasses.asdict(column) for column in self.columns]
        if self.label is not None:
            kind = next(kind for kind, cls in _LABELS.items() if isinstance(self.label, cls))
            values["label"] = {"kind": kind, **{name: list(value) for name, value in dataclasses.asdict(self.label).items()}}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DataSpec":
        """The spec that `to_json` wrote."""
        label = dict(values["label"]) if values["label"] else None
        kind = _LABELS[label.pop("kind")] if label else None
        return cls(
            **{
                **values,
                "shape": tuple(values["shape"]),
                "columns": tuple(Column(**column) for column in values["columns"]),
                "label": kind and label and kind(**{name: tuple(value) for name, value in label.items()}),
            }
        )


# ---------------------------------------------------------------------------------------------------------------
# Configurations: nested frozen keyword-only dataclasses of JSON-able values, checked when made


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number in a `Config`, both included unless `open`: Annotated[float, Range(0, 1)]."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def check(self, name: str, value: float) -> None:
        """Raises `UsageError` where `value` lies outside."""
        inside = self.low < value < self.high if self.open else self.low <= value <= self.high
        if inside:
            return
        more, less = ("more than", "less than") if self.open else ("at least", "at most")
        bounds = [f"{more} {self.low:g}"] if self.low > -math.inf else []
        bounds += [f"{less} {self.high:g}"] if self.high < math.inf else []
        raise UsageError(f"{name} must be {' and '.join(bounds)}, not {value:g}")


Positive = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]


def _check_value(name: str, hint: Any, value: Any) -> None:
    """One field against its type hint: literals, unions with None, numbers, tuples, nested configs."""
    origin = get_origin(hint)
    if origin is Annotated:
        _check_value(name, get_args(hint)[0], value)
        for bound in get_args(hint)[1:]:
            if isinstance(bound, Range) and value is not None:
                bound.check(name, value)
    elif origin is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} must be one of {', '.join(map(str, get_args(hint)))}, not {value!r}")
    elif origin in (typing.Union, types.UnionType):
        if value is not None or type(None) not in get_args(hint):
            options = [option for option in get_args(hint) if option is not type(None)]
            _check_value(name, options[0], value)
    elif origin is tuple:
        inner = get_args(hint)
        if not isinstance(value, tuple) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise UsageError(f"{name} must be a tuple of {'' if inner[-1] is Ellipsis else len(inner)} values, not {value!r}")
        for item, item_hint in zip(value, inner if inner[-1] is not Ellipsis else inner[:1] * len(value), strict=True):
            _check_value(name, item_hint, item)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value!r}")
    elif isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UsageError(f"{name} must be {hint.__name__}, not {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: values are checked against their type hints and `Range`s when made."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            _check_value(field.name.replace("_", "-"), hints[field.name], getattr(self, field.name))

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_json` wrote. Raises `UsageError` for a field that does not exist."""
        hints = typing.get_type_hints(cls)
        if unknown := sorted(set(values) - set(hints)):
            near = difflib.get_close_matches(unknown[0], hints, 1)
            meant = f": did you mean {near[0]}?" if near else f"; fields are: {', '.join(sorted(hints))}"
            raise UsageError(f"unknown field {unknown[0]} in {cls.__qualname__}{meant}")

        def read(hint: Any, value: Any) -> Any:
            if isinstance(hint, type) and issubclass(hint, Config) and isinstance(value, Mapping):
                return hint.from_json(value)
            return tuple(value) if isinstance(value, list) else value

        return cls(**{name: read(hints[name], value) for name, value in values.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Config):
    """How a player's parameters move; plain data, from which `pofx.optim` builds the optimizer.

    The learning rate is lr x ramp(p), where p is the share of the player's span that is done, a function of progress alone:
    a linear warm-up over the first `warmup` of the span, then from `decay_start` on a fall to `final` x lr along the curve
    `decay`.
    """

    name: Literal["adam", "adamw", "adadelta", "sgd", "muon"] = "adam"
    """adam, adamw, adadelta, sgd; muon moves the matrices of linear layers and leaves the rest to adamw."""
    lr: PositiveFloat = 1e-3
    """Learning rate; adadelta, whose steps have their own size, is made for 1."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running mean and of the running square of the gradient (adam, adamw, and muon's adamw)."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator (adam, adamw, adadelta)."""
    weight_decay: NonNegative = 0.0
    """Decoupled for adamw and muon, an L2 penalty for the others."""
    momentum: Annotated[float, Range(0, 1)] = 0.9
    """Momentum (sgd, and muon's matrices)."""
    matrix_lr: PositiveFloat = 1e-2
    """Learning rate of the matrices (muon)."""
    warmup: Fraction = 0.0
    """Share of the player's span over which the learning rate rises from 0."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Curve along which the learning rate falls."""
    decay_start: Fraction = 0.0
    """Share of the player's span after which the fall begins."""
    final: Fraction = 0.0
    """What is left of the learning rate at the end of the fall, as a share of lr."""
    clip: Annotated[float | None, Range(0, open=True)] = None
    """Largest norm of the gradient; a larger one is scaled down to it. None: no limit."""


# ---------------------------------------------------------------------------------------------------------------
# The game


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a player minimises: total = sum of weight x term.

    terms: named scalars, unweighted, with gradients; log-likelihoods and divergences in nats per example.
    weights: weight of each term; 1 where absent.
    metrics: named scalars that are logged only.
    """

    terms: Mapping[str, Float[Tensor, ""]]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Float[Tensor, ""]] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, ""]:
        """The weighted sum."""
        parts = [term if name not in self.weights else self.weights[name] * term for name, term in self.terms.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


@dataclasses.dataclass(frozen=True)
class Epochs:
    """A phase length counted in passes over the training data instead of moves."""

    passes: float


@dataclasses.dataclass(frozen=True)
class Player:
    """One player of the game.

    name: names the losses, "name/term".
    loss: from a batch to the player's loss; called while every parameter outside `owns` is frozen.
    owns: the modules and bare parameters that this player moves.
    optimizer: how it moves them.
    steps: moves in one round, a number or `Epochs`.
    span: the share of the budget, in progress, in which it moves.
    """

    name: str
    loss: Callable[[Batch], Loss]
    owns: tuple[nn.Module | nn.Parameter, ...]
    optimizer: Optimizer
    steps: int | Epochs = 1
    span: tuple[float, float] = (0.0, 1.0)

    def parameters(self) -> list[tuple[nn.Module | None, nn.Parameter]]:
        """The parameters it moves, each once and with the module that holds it (None for a bare one)."""
        found: dict[int, tuple[nn.Module | None, nn.Parameter]] = {}
        for owned in self.owns:
            if isinstance(owned, nn.Parameter):
                found.setdefault(id(owned), (None, owned))
                continue
            for module in owned.modules():
                for parameter in module.parameters(recurse=False):
                    found.setdefault(id(parameter), (module, parameter))
        return list(found.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """How long to train: exactly one of rounds, passes over the training data, minutes of training."""

    steps: Positive | None = None
    epochs: Annotated[float | None, Range(0, open=True)] = None
    minutes: Annotated[float | None, Range(0, open=True)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"a budget is one of --steps, --epochs and --minutes, not {' and '.join(given) or 'none'}")

    def seen(self, size: int, batch: int, speed: float) -> float:
        """Examples, or tokens, that a training sees of `size`: `batch` in a round, and so many a minute as `speed` says."""
        if self.minutes is not None:
            return self.minutes * speed
        return self.epochs * size if self.epochs is not None else float((self.steps or 0) * batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's defaults for the data at hand: its config, batch size, budget and the decay of the averaged weights."""

    config: Config
    batch_size: int = 128
    budget: Budget = dataclasses.field(default_factory=lambda: Budget(epochs=20))
    ema: float = 0.999


class Model(nn.Module, ABC):
    """A probabilistic model of X or X|Y: an `nn.Module` that lists its players.

    All of its memory is parameters and buffers, so `state_dict()` is the model. Buffers registered with
    `persistent=False` are training state. `loss` functions write buffers only in training mode and leave the batch as
    they found it.

    Attributes:
        kinds: the kinds of data that it can model.
        window: the number of tokens of one example (models of tokens).
        order: of the training examples: shuffled in each pass, or in lanes, where lane b of one batch continues lane b of the last
            (`Batch.lane`), for a state that is carried on; data whose examples do not follow one another are shuffled all the same.
        resizable: names of buffers whose size depends on the data.
        conditions: what to do to have a capability of the class that settings or data can take away.
        progress: share of the budget that is done, in [0, 1]; a float64 scalar on the CPU, written by the trainer
            before each move. Every schedule is a function of it.
    """

    Config: ClassVar[type[Config]]
    kinds: ClassVar[frozenset[str]]
    resizable: frozenset[str] = frozenset()
    conditions: ClassVar[Mapping[type["Capability"], str]] = {}
    window: int | None = None
    order: Literal["shuffled", "lanes"] = "shuffled"
    progress: Tensor

    def __init__(self, spec: DataSpec, config: Any) -> None:
        super().__init__()
        if spec.kind == "tokens" and spec.vocabulary < 1:
            raise UsageError(f"{type(self).__name__} needs tokens: the data has no vocabulary")
        self.spec, self.config = spec, config
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The clock stays on the CPU in float64: reading it must not wait for an accelerator, and MPS has no float64.
        progress = self._buffers.pop("progress")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers["progress"] = progress
        return self

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next((value.device for value in self.parameters()), torch.device("cpu"))

    @classmethod
    def recipe(cls, spec: DataSpec, budget: Budget | None) -> Recipe:
        """Defaults for this data and budget (None: nobody asked for one); pure, asked once and stored."""
        return Recipe(config=cls.Config())

    def players(self) -> tuple[Player, ...]:
        """The players in the order in which they move; none means that the trainer calls `fit`."""
        return (Player("model", self.loss, (self,), self.config.optimizer),)

    def loss(self, batch: Batch) -> Loss:
        """The loss of a game of one player."""
        raise TypeError(f"{type(self).__name__} defines neither players() nor loss()")

    def fit(self, batches: Iterator[Batch]) -> None:
        """For a model without players: one ordered pass; its memory after each batch is kept in buffers."""
        raise TypeError(f"{type(self).__name__} has no players and defines no fit()")

    def risen(self, share: float) -> float:
        """How far a weight has come, in [0, 1], that rises evenly from 0 over the first `share` of the budget."""
        return 1.0 if share == 0 else min(1.0, float(self.progress) / share)

    @property
    def milestones(self) -> Mapping[str, float]:
        """Points of the budget, in progress and rising, after which samples are made in another way than before, and the names of what
        ends there; a run keeps a picture of each."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was chosen from the data, told before training."""
        return ()

    @property
    def validation(self) -> str | None:
        """Name of the validation score, lower is better; None where the model has none."""
        players = self.players()
        return f"{players[0].name}/total" if len(players) == 1 else None

    def validate(self, batch: Batch) -> Float[Tensor, ""]:
        """The validation score of a batch, a mean over its examples."""
        return self.loss(batch).total

    def symptoms(self, batch: Batch) -> Mapping[str, str]:
        """What is wrong with the model, as held-out examples show it: for each symptom its name and one sentence with what
        was seen, what it means and what to change. Asked of the averaged weights at each validation."""
        return {}

    def signs(self, batch: Batch) -> Mapping[str, float]:
        """Numbers about the model as held-out examples show them, by name, "panel/term"; logged when symptoms are asked for."""
        return {}

    @property
    def capabilities(self) -> frozenset[type["Capability"]]:
        """What this model, with its config, can do; metrics, figures and verbs ask for it, the trainer never."""
        return frozenset(capability for capability in CAPABILITIES if isinstance(self, capability))


# ---------------------------------------------------------------------------------------------------------------
# Capabilities: what a trained model can be asked for. A model inherits those that it has.


class Capability(ABC):
    """Base of the capabilities; `verb` is how a person says it."""

    verb: ClassVar[str]


class Samples(Capability):
    """Draws new data."""

    verb = "sample"

    @abstractmethod
    def sample(self, n: int, *, noise: Noise, label: Tensor | None = None) -> Shaped[Tensor, "n ..."]:
        """n new examples in the space of `Batch.x`, from the random numbers of `noise` alone. `label`, as `Batch.label` and
        none of it missing, where the model is conditional; None draws labels from the training marginal."""


class Encodes(Capability):
    """Maps data to codes."""

    verb = "encode"

    @abstractmethod
    def encode(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, "batch latent"]:
        """One code an example (for a posterior, its mean)."""


class CodePrior(ABC):
    """A distribution over codes that was fitted after training (`pofx fit-prior`); no `nn.Module`, since it is not the model's."""

    @abstractmethod
    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n latent"]:
        """One code for each row of `noise`."""


class Decodes(Capability):
    """Maps codes to data.

    Attributes:
        fitted: where it is given, `sample` draws its codes from it instead of from `prior()`.
        stopgap: what `prior()` is, where training asked for no prior and it is a makeshift.
    """

    verb = "decode"
    fitted: CodePrior | None = None
    stopgap: ClassVar[str] = ""

    @abstractmethod
    def decode(self, z: Float[Tensor, "batch latent"], *, label: Tensor | None = None) -> Shaped[Tensor, "batch ..."]:
        """Data for each code, in the space of `Batch.x`; of tokens, `window` of them."""

    @abstractmethod
    def prior(self) -> torch.distributions.Distribution:
        """The distribution that codes are drawn from; its event is one code."""


class Likelihood(NamedTuple):
    """log P(x) of each example.

    nats: log-likelihood in nats, (batch,).
    kind: whether it is exact or a lower bound.
    space: binary | 8-bit | tokens | density; numbers of different spaces are never compared.
    samples: the number of importance samples of a bound.
    """

    nats: Float[Tensor, " batch"]
    kind: Literal["exact", "lower bound"]
    space: Literal["binary", "8-bit", "tokens", "density"]
    samples: int | None = None


class Scores(Capability):
    """Knows the likelihood of data."""

    verb = "score"

    @abstractmethod
    def log_prob(self, x: Tensor, *, label: Tensor | None = None) -> Likelihood:
        """log P(x), or log P(x|label) where the model is conditional."""


class Predicts(Capability):
    """Tells of each token of a text what was to be expected there."""

    verb = "predict"

    @abstractmethod
    def logits(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Whose softmax is P(x_t | x_1, ..., x_{t-1}) for all symbols at each place t; texts may be of any length."""

    def stretches(self, x: Int64[Tensor, "batch time"]) -> Iterator[Float[Tensor, "batch stretch vocabulary"]]:
        """The same for one stretch of x after the other: a model that carries a state on holds few logits of a long text at once."""
        yield self.logits(x)


class Completes(Capability):
    """Fills in what is missing.

    Attributes:
        in_order: whether elements are drawn one after the other, each for good: of images row after row from the top.
    """

    verb = "complete"
    in_order: ClassVar[bool] = False

    @abstractmethod
    def complete(self, x: Tensor, mask: Tensor, *, noise: Noise) -> Shaped[Tensor, "batch ..."]:
        """x with the elements where `mask` is False drawn anew, the others kept."""


class Forecasts(Capability):
    """Goes on from the past."""

    verb = "forecast"

    @abstractmethod
    def forecast(self, x: Float[Tensor, "batch time features"], horizon: int, *, noise: Noise) -> Float[Tensor, "batch horizon features"]:
        """The next `horizon` steps of each sequence, drawn: one possible future for each row of x."""


class Denoises(Capability):
    """Removes noise of the kind that it was trained on."""

    verb = "denoise"

    @abstractmethod
    def denoise(self, x: Tensor) -> Float[Tensor, "batch ..."]:
        """The clean example expected behind each noisy one."""

    @abstractmethod
    def corrupt(self, x: Tensor, *, noise: Noise) -> Float[Tensor, "batch ..."]:
        """x under the noise of the training, from the random numbers of `noise` alone."""


class Classifies(Capability):
    """Names the class."""

    verb = "classify"

    @abstractmethod
    def classify(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Class logits."""


class Judges(Capability):
    """Tells real from generated."""

    verb = "judge"

    @abstractmethod
    def judge(self, x: Tensor, *, label: Tensor | None = None) -> Float[Tensor, " batch"]:
        """One real/fake logit an example, higher for real."""


class Trajectory(Capability):
    """Shows how a sample comes to be."""

    verb = "trajectory"

    @abstractmethod
    def trajectory(self, n: int, *, noise: Noise) -> Shaped[Tensor, "frames n ..."]:
        """The stages of n samples."""


CAPABILITIES: tuple[type[Capability], ...] = (
    Samples, Encodes, Decodes, Scores, Predicts, Completes, Forecasts, Denoises, Classifies, Judges, Trajectory,
)  # fmt: skip
