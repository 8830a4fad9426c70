"""Which examples a player's j-th batch holds: a function of (seed, player, j), reshuffled each pass."""

from torch import Tensor, cat

from pofx.core import Batch, UsageError, mix
from pofx.data.dataset import Split


class Stream:
    """One player's endless supply of batches.

    Arguments:
        name: the player's name, part of the seed.
        size: examples of a global batch; ranks take slices of it.
    """

    def __init__(self, split: Split, *, name: str, size: int, window: int | None, seed: int) -> None:
        self.split, self.name, self.size, self.window, self.seed = split, name, size, window, seed
        self._passes: dict[int, Tensor] = {}
        self.count = len(self._pass(0))
        if size > self.count:
            what = f"windows of {window} tokens" if window else "examples"
            raise UsageError(
                f"a batch of {size} is larger than the training data, which have {self.count} {what}: use --batch-size {self.count} or less"
            )

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            shuffled = self.split.positions(self.window, shuffle=mix(self.seed, self.name, "pass", number))
            # A batch may straddle two passes, never three.
            self._passes = {known: value for known, value in self._passes.items() if known == number - 1} | {number: shuffled}
        return self._passes[number]

    def positions(self, j: int) -> Tensor:
        """The positions in the split of the j-th batch."""
        number, start = divmod(j * self.size, self.count)
        part = self._pass(number)[start : start + self.size]
        return part if len(part) == self.size else cat([part, self._pass(number + 1)[: self.size - len(part)]])

    def batch(self, j: int, *, device: str, rank: int = 0, ranks: int = 1) -> Batch:
        """The j-th batch, or a rank's slice of it."""
        whole = self.split.batch(self.positions(j), window=self.window, device=device, training=mix(self.seed, self.name, "data", j))
        if ranks == 1:
            return whole
        part = slice(rank * self.size // ranks, (rank + 1) * self.size // ranks)
        return Batch(whole.x[part], None if whole.label is None else whole.label[part])
