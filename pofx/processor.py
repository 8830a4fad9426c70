"""How the processor and the C library are told to train: freed memory is kept, and numbers that are nearly 0 are 0."""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)."""


@functools.cache
def keep_freed_memory() -> None:
    """Has glibc keep freed memory instead of giving it back to the system.

    A move allocates and frees the same activations as the one before. By default glibc returns large blocks at once,
    and every page of the next move is faulted in and zeroed again: 5 to 15 % of the time of small networks on a CPU.
    Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def flushed_subnormals() -> Iterator[None]:
    """Within this context numbers below 1e-38 are 0, on processors that can; afterwards all is as it was.

    Arithmetic with them is many times as slow, and what an optimizer remembers of weights whose gradients have stopped decays
    into them: after an hour, moves took half as long again. Threads take the mode of the one that starts them, so that it is
    entered before data are read; those of an earlier calculation keep theirs.
    """
    before = bool((torch.full((1,), 1e-39) * 1.0 == 0).all())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
