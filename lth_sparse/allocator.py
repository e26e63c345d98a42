"""The heap of a process that is ours: freed memory is kept for the next tensor. For programs only, not the library."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1
_kept = False


def keep_freed_memory() -> None:
    """Makes glibc serve every tensor of this process from its heap, and keep what is freed.

    By default it maps each tensor of 32 MB and more afresh, and a fresh page costs a fault when it is first written:
    more than the arithmetic of a sparse layer with large activations. Skipped without a word where the C library
    has no mallopt. The process stays as large as it once was.
    """
    global _kept
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    _kept = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def describe() -> str:
    """What stands beside a time that was measured in this process."""
    return "freed memory kept (mallopt)" if _kept else "as the C library sets it up"
