"""Which examples a player's j-th batch holds: a function of (seed, player, j); reshuffled each pass, or in lanes."""

from typing import Literal

from torch import Tensor, arange, cat

from pofx.core import Batch, UsageError, mix
from pofx.data.dataset import Split


class Stream:
    """One player's endless supply of batches.

    Shuffled, each pass visits every example once in an order of its own. In lanes, lane b of one batch continues lane b of the
    last: the lanes begin at even distances, and each goes on to the end of the data and then starts anew near their beginning.
    Data whose examples stand alone are shuffled, whatever the order.

    Arguments:
        name: the player's name, part of the seed.
        size: examples of a global batch; ranks take slices of it.
        order: shuffled or lanes.
    """

    def __init__(
        self,
        split: Split,
        *,
        name: str,
        size: int,
        window: int | None,
        seed: int,
        order: Literal["shuffled", "lanes"] = "shuffled",
    ) -> None:
        self.split, self.name, self.size, self.window, self.seed = split, name, size, window, seed
        self._lane = split.lane(window) if order == "lanes" else None
        self._passes: dict[int, Tensor] = {}
        #: Examples of one pass; windows of lanes may overlap, so that there can be more lanes than that.
        self.count = len(self._pass(0)) if self._lane is None else -(-self._lane[1] // self._lane[0])
        most = self.count if self._lane is None else self._lane[1]
        if size > most:
            what = f"windows of {window} tokens" if window else "examples"
            raise UsageError(
                f"a batch of {size} is larger than the training data, which have {most} {what}: use --batch-size {most} or less"
            )

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            shuffled = self.split.positions(self.window, shuffle=mix(self.seed, self.name, "pass", number))
            # A batch may straddle two passes, never three.
            self._passes = {known: value for known, value in self._passes.items() if known == number - 1} | {number: shuffled}
        return self._passes[number]

    def _lanes(self, j: int) -> tuple[Tensor, Tensor]:
        """Where the lanes of the j-th batch begin, and which of them start anew."""
        assert self._lane is not None
        step, places = self._lane
        at = arange(self.size) * places // self.size + mix(self.seed, self.name, "lanes") % places + j * step
        return at % places, (at // places != (at - step) // places) | (j == 0)

    def positions(self, j: int) -> Tensor:
        """The positions in the split of the j-th batch."""
        if self._lane is not None:
            return self._lanes(j)[0]
        number, start = divmod(j * self.size, self.count)
        part = self._pass(number)[start : start + self.size]
        return part if len(part) == self.size else cat([part, self._pass(number + 1)[: self.size - len(part)]])

    def batch(self, j: int, *, device: str, rank: int = 0, ranks: int = 1) -> Batch:
        """The j-th batch, or a rank's slice of it."""
        whole = self.split.batch(self.positions(j), window=self.window, device=device, training=mix(self.seed, self.name, "data", j))
        if self._lane is not None:
            whole = whole._replace(lane=arange(self.size, device=device), fresh=self._lanes(j)[1].to(device))
        if ranks == 1:
            return whole
        part = slice(rank * self.size // ranks, (rank + 1) * self.size // ranks)
        return Batch(*(None if value is None else value[part] for value in whole))
