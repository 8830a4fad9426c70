"""What a discriminator can see in a whole batch: how far the examples of a group lie apart."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import UsageError

SHARE = 0.02
"""Of a new number in a running mean, once there were many."""


class RunningMean(nn.Module):
    """The running mean of a number, moved in training mode only: the mean of all until so many have been taken in that each new one
    has a share of 2 %, which is then its share for good.

    Arguments:
        kept: whether what is judged or sampled needs it; else it is training state.
    """

    value: Tensor
    taken: Tensor

    def __init__(self, *, kept: bool = True) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()), persistent=kept)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """The mean so far, with that of x taken in."""
        if self.training:
            # On the device: nothing waits for the count.
            self.taken += 1
            self.value += (x.detach().mean() - self.value) * (1.0 / self.taken).clamp(min=SHARE)
        return self.value


class MinibatchStd(nn.Module):
    """Joins to the features of each example the mean standard deviation of the features in its group.

    A generator that draws similar examples is found out by it. The only layer that mixes examples; in evaluation mode it
    joins the running mean instead, so that what is said of an example does not depend on its neighbours.

    Arguments:
        group: examples in a group; of a batch that it does not divide, the next smaller number that does. Raises `UsageError` for 1.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 3,
        https://arxiv.org/abs/1710.10196
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        if group < 2:
            raise UsageError("minibatch-std must be at least 2: the examples of a group, or 0 for none")
        self.group = group
        self.usual = RunningMean()

    def forward(self, x: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch more ..."]:
        """(batch, features, ...) to (batch, features + 1, ...)."""
        if self.training:
            size = next(size for size in range(min(self.group, len(x)), 0, -1) if len(x) % size == 0)
            # Example i is in group i mod (batch / size).
            # Channels last, as they lie in memory, and spelt out: with a penalty this is half the time that `var` takes.
            groups = x.movedim(1, -1).flatten(1).float().unflatten(0, (size, -1))
            variance = (groups - groups.mean(0)).square().mean(0)
            spread = (variance + 1e-8).sqrt().mean(1).repeat(size)
            self.usual(spread)
        else:
            spread = self.usual.value.expand(len(x))
        column = spread.to(x.dtype).view(-1, 1, *[1] * (x.ndim - 2)).expand(-1, 1, *x.shape[2:])
        # Joined in the order in which features lie in memory, so that they lie in it afterwards.
        return torch.cat((x.movedim(1, -1), column.movedim(1, -1)), -1).movedim(-1, 1)
