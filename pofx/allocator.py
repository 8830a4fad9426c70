"""The C library's allocator, told to keep freed memory for the next move."""

import ctypes
import functools
import sys

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
