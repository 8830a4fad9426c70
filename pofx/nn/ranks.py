"""What a module that follows its data must know of other ranks: sums over all of them, so that its buffers stay equal."""

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def first() -> bool:
    """Whether this is the first rank, or the only one."""
    return not _several() or dist.get_rank() == 0


def summed(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over ranks, in place where there are several."""
    if _several():
        dist.all_reduce(value)
    return value
