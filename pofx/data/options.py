"""What a person can ask of a data source, and the request that every source module answers."""

import dataclasses
import pathlib
import re
from typing import Annotated, Literal

from pofx.core import Config, Range, UsageError
from pofx.data.dataset import Codec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Config):
    """How a source is read; an option that the source cannot use is refused."""

    kind: Literal["images", "tokens", "vectors", "sequences"] | None = None
    """What the data are; by default the file says. The only way to sequences."""
    size: str | None = None
    """Size to which images are brought: HxW, or H for squares. By default they stay as they are."""
    fit: Literal["crop", "pad"] = "crop"
    """With size: scale the shorter side and crop the centre, or scale the longer side and pad with black."""
    flip: bool = False
    """Mirror training images left to right at random."""
    bits: Literal[1, 8] | None = None
    """1 binarises grey images at random as they are drawn; 8 keeps 256 levels. By default as the source stores them."""
    label: str | None = None
    """Column of the label, or several with commas between them (tables, and a labels.csv beside images)."""
    labelled: Annotated[int | None, Range(0)] = None
    """Keep the labels of so many training examples, classes balanced, and hide the others."""
    validation: Annotated[float | None, Range(0, 0.9)] = None
    """Share held out for validation; 0 trains on it. By default the source's own, 10 % of one split here, 2 % of a text, else 5 %."""
    tokens: Literal["chars", "bytes", "bpe"] = "chars"
    """Symbols of a text: its characters, the 256 bytes, or runs of bytes that are frequent in it (byte-pair encoding)."""
    vocabulary: Annotated[int | None, Range(256)] = None
    """Tokens of a byte-pair encoding, the 256 bytes among them; by default 512 to 8,192 by the size of the text."""
    time: str | None = None
    """Column of a table that says when each row was: the other columns of numbers are then one series."""
    window: Annotated[int | None, Range(2)] = None
    """Steps of an example, which cuts one long series into windows. By default 100, or a twelfth of a short series."""
    missing: Literal["indicator", "drop"] = "indicator"
    """Rows of a table with empty cells: add a 0/1 column that says so (a series has none to add), or drop them."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an example that cannot be read: stop with its name, or skip and count it."""
    seed: Annotated[int, Range(0)] = 0
    """Of splits, hidden labels and generated data, so that trainings of several --seed see and hold out the same examples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and (not re.fullmatch(r"\d{1,4}(x\d{1,4})?", self.size) or 0 in self.height_width):
            raise UsageError(f"--data.size must be HxW or H in pixels, such as 64x48 or 64, not {self.size!r}")

    @property
    def height_width(self) -> tuple[int, int]:
        """`size` as (height, width); (0, 0) where none was asked for."""
        sides = [int(side) for side in (self.size or "0").split("x")]
        return sides[0], sides[-1]

    def only(self, source: str, kind: str, *usable: str) -> None:
        """Raises `UsageError` naming the first option that differs from its default and is not in `usable`."""
        for field in dataclasses.fields(self):
            if field.name not in usable and getattr(self, field.name) != field.default:
                raise UsageError(f"--data.{field.name.replace('_', '-')} has no meaning for {source}, which is {kind}: leave it out")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a source module is asked to load.

    source: what the person typed. path: the file or folder; None for a built-in name.
    codec: the codec of a trained run, with which the source is then read, or None to fit a new one.
    """

    source: str
    path: pathlib.Path | None
    options: Options
    codec: Codec | None = None

    @property
    def seed(self) -> int:
        """Of splits, hidden labels and generated data."""
        return self.options.seed

    @property
    def file(self) -> pathlib.Path:
        """The path of a source that is not built in."""
        assert self.path is not None
        return self.path
