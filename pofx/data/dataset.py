"""What every source of data yields: splits that hand out batches, a spec that describes them, a codec that undoes it."""

import abc
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from pofx.core import Batch, DataSpec, UsageError, mix

#: Numbers that are compared at once.
COMPARED = 1 << 16


class Codec(abc.ABC):
    """Between the units of a source and the values that a model sees; saved in every checkpoint.

    Subclasses are frozen dataclasses of JSON-able values, one for each kind of data, each in the file that needs it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def write(self, x: Tensor, path: pathlib.Path, label: Tensor | None = None) -> None:
        """Writes examples in the source's own units, dtype and layout to `path`, by its ending. Raises `UsageError`
        with the endings that it knows for any other."""

    @abc.abstractmethod
    def show(self, x: Tensor) -> "np.ndarray[Any, Any] | list[str]":
        """Examples in the source's units: an array with one example a row, or texts."""

    def cells(self, x: Tensor) -> tuple[list[str], list[list[str]]] | None:
        """Names of the columns, and the cells of each example as they are read; None where examples are no rows of a table."""
        return None

    def log_jacobian(self) -> float:
        """log |d(model's values)/d(source's units)| of one example, which is added to densities; 0 where none."""
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """The codec as JSON-able values."""
        return {"name": self.name, **dataclasses.asdict(self)}  # type: ignore[call-overload]


class Split:
    """One part of a data set: examples by index, from memory or from a memory map, without per-item Python.

    Arguments:
        x: uint8 or float32 (n, channels, height, width); float32 (n, features) or (n, time, features); integers
           (length,) for tokens: one long text.
        label: as `Batch.label`, one row for each of x; None without labels.
        rows: the rows of x that belong to this split, where it is not all of them.
        bits: 1 to binarise grey images as they are drawn; 8 for uint8 images; None otherwise.
        flip: mirror images left to right at random, in training only.
        stride: how far apart two rows of x begin that follow one another, where rows are windows of one series; None where
            rows stand alone.
        seed: of the one fixed binarisation of a split that is not trained on.
    """

    def __init__(
        self,
        x: Tensor,
        label: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        tokens: bool = False,
        bits: int | None = None,
        flip: bool = False,
        stride: int | None = None,
        seed: int = 0,
    ) -> None:
        self.x, self.label, self._rows = x, label, rows
        self.tokens, self.bits, self.flip, self.stride, self.seed = tokens, bits, flip, stride, seed

    def __len__(self) -> int:
        """Examples, or tokens of a text."""
        return len(self.x) if self._rows is None else len(self._rows)

    @property
    def constant(self) -> bool:
        """Whether two examples or more (symbols, in a text) are all equal."""
        if len(self) < 2:
            return False
        first = self.x[0 if self._rows is None else self._rows[0]]
        size = max(1, COMPARED // max(1, first.numel()))
        # Data that differ nearly always do so among the first few, and no others are read then: a text may be larger than memory.
        parts = (slice(start, start + size) for start in range(0, len(self), size))
        return all(bool((self.x[part if self._rows is None else self._rows[part]] == first).all()) for part in parts)

    def _window(self, window: int | None) -> int:
        if window is None:
            raise UsageError("a model of tokens declares its window")
        return window

    def lane(self, window: int | None = None) -> tuple[int, int] | None:
        """How far apart two examples begin that follow one another, and at how many places one may begin; None where examples
        stand alone. Raises `UsageError` for a text shorter than the window."""
        if self.tokens:
            self.positions(window)
            return self._window(window), len(self) - self._window(window) + 1
        return None if self.stride is None else (self.stride, len(self))

    def positions(self, window: int | None = None, *, shuffle: int | None = None) -> Tensor:
        """What one pass visits, in order: row numbers, or the starts of the windows of a text.

        Arguments:
            window: tokens of one example.
            shuffle: seed of the pass; a text then starts at a random phase, so that windows differ between passes.
                None gives the order of the file; a text's last, shorter window is then left to `batches`.
        """
        generator = None if shuffle is None else torch.Generator().manual_seed(mix(shuffle, "pass"))
        if not self.tokens:
            return torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        window = self._window(window)
        if len(self) < window:
            raise UsageError(
                f"the text has {len(self):,} tokens here, fewer than the model's window of {window:,}: give more text or a smaller window"
            )
        count = len(self) // window
        if generator is None:
            return torch.arange(count) * window
        # One window fewer leaves room for every phase.
        count = max(1, count - 1) if len(self) % window < window - 1 else count
        phase = int(torch.randint(len(self) - count * window + 1, (), generator=generator))
        return torch.randperm(count, generator=generator) * window + phase

    def batch(
        self,
        positions: Tensor,
        *,
        window: int | None = None,
        device: torch.device | str = "cpu",
        training: int | None = None,
    ) -> Batch:
        """The examples at `positions`, moved to `device` as they are stored and scaled there.

        Arguments:
            training: seed of this batch's mirroring and binarisation, which are functions of (seed, place in batch);
                None leaves images as they are and binarises each row by its one fixed draw.
        """
        if self.tokens:
            offsets = positions[:, None] + torch.arange(self._window(window))
            return Batch(self.x[offsets].to(device=device, dtype=torch.int64))
        rows = positions if self._rows is None else self._rows[positions]
        x = self.x.index_select(0, rows).to(device, non_blocking=True)
        if x.dtype == torch.uint8:
            x = x.to(torch.float32).mul_(1 / 255)
        if self.bits == 1:
            x = (self._coins(positions, x.shape[1:], training).to(x.device) < x).to(torch.float32)
        if self.flip and training is not None:
            generator = torch.Generator().manual_seed(mix(training, "flip"))
            mirrored = (torch.rand(len(positions), generator=generator) < 0.5).to(x.device)
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
        label = None if self.label is None else self.label.index_select(0, rows).to(device)
        return Batch(x, label)

    def _coins(self, positions: Tensor, shape: torch.Size, training: int | None) -> Tensor:
        if training is not None:
            return torch.rand((len(positions), *shape), generator=torch.Generator().manual_seed(mix(training, "bits")))
        generator = torch.Generator()
        coins = [torch.rand(shape, generator=generator.manual_seed(mix(self.seed, int(i)))) for i in positions]
        return torch.stack(coins)

    def batches(
        self, size: int, *, window: int | None = None, device: torch.device | str = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """Every example once, in order, in batches of `size`; a text in windows, the last one as long as is left.

        Arguments:
            limit: at most so many examples (windows, for a text), from the first on.
        """
        # A text shorter than one window is one short window.
        whole = not self.tokens or len(self) >= self._window(window)
        positions = self.positions(window) if whole else torch.empty(0, dtype=torch.int64)
        for part in positions[:limit].split(size) if len(positions) else ():
            yield self.batch(part, window=window, device=device)
        if self.tokens and (limit is None or limit > len(positions)):
            rest = len(self) - len(positions) * self._window(window)
            if rest:
                yield self.batch(torch.tensor([len(self) - rest]), window=rest, device=device)

    def spread(self, n: int, size: int, *, window: int | None = None, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """n examples (windows of a text) at equal distances, in order, in batches of `size`; every one where there are no more."""
        if len(self) <= n * (self._window(window) if self.tokens else 1):
            yield from self.batches(size, window=window, device=device)
            return
        positions = self.positions(window)
        for part in positions[torch.arange(n) * len(positions) // n].split(size):
            yield self.batch(part, window=window, device=device)

    def entropy(self, positions: Tensor | None = None) -> float | None:
        """Mean entropy in nats of an example's binarisation given its grey values, below which no likelihood of the bits
        can be expected to fall; None where nothing is binarised.

        Arguments:
            positions: of the examples that are meant; None: all.
        """
        if self.bits != 1:
            return None
        x = self.x if self._rows is None else self.x[self._rows]
        x = x if positions is None else x[positions]
        p = x.to(torch.float64) / (255 if x.dtype == torch.uint8 else 1)
        return float(-(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum() / len(x))

    def draw_hash(self) -> str:
        """Hash of the one fixed binarisation, so that numbers measured on it can be compared."""
        digest = hashlib.sha256()
        for batch in self.batches(512):
            digest.update(np.packbits(batch.x.numpy().astype(np.uint8)).tobytes())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Factors:
    """The factors of variation that generated data were drawn from; each takes the values 0 to below its size.

    train, validation, test: the values of each part's examples, in the order of the part; None where there is no such part.
    render: from values (n, factors) to the examples as a model sees them.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    train: Int64[np.ndarray, "train factors"]
    validation: Int64[np.ndarray, "validation factors"] | None
    test: Int64[np.ndarray, "test factors"] | None
    render: Callable[[Int64[np.ndarray, "n factors"]], Shaped[Tensor, "n ..."]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set: splits, what a model must know of them, and the way back to the source's units.

    source: what the person typed. fingerprint: a hash of the content and of the options that shape it.
    notes: sentences that a person should read (what was skipped, cropped, fetched).
    factors: what the examples were drawn from, where that is known.
    times: of each step of a series, numbers or dates, where the source says.
    """

    source: str
    spec: DataSpec
    codec: Codec
    train: Split
    validation: Split | None
    test: Split | None
    fingerprint: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    factors: Factors | None = None
    times: np.ndarray | None = None
