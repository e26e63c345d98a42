"""The heap of a process that is ours: freed memory is kept for the next tensor. For programs only, not the library."""

from __future__ import annotations

import ctypes
import mmap
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1
_kept = ""


def keep_freed_memory() -> None:
    """Makes glibc serve every tensor of this process from its heap, keep what is freed, and ask for huge pages.

    By default it maps each tensor of 32 MB and more afresh, and a fresh page costs a fault when it is first written:
    more than the arithmetic of a sparse layer with large activations. A heap that is kept still grows now and then,
    when what is free lies in too small pieces; in huge pages that is one fault where it was 512. Call it in the main
    thread, whose heap this is. Skipped without a word where the C library has no mallopt, and huge pages where the
    system has none. The process stays as large as it once was.
    """
    global _kept
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return
    if mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER):
        _kept = "mallopt, huge pages where the system has them" if _ask_for_huge_pages(library) else "mallopt"


def _ask_for_huge_pages(library: ctypes.CDLL) -> bool:
    """For what the heap will grow into: addresses only, which become memory when they are written."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
    block = library.malloc(size)
    if not block:
        return False
    begin = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (block + size) // mmap.PAGESIZE * mmap.PAGESIZE
    # While it is ours: once free it is the top of the heap, and the advice stays with its addresses.
    advised: int = library.madvise(begin, end - begin, mmap.MADV_HUGEPAGE)
    library.free(block)
    return advised == 0


def describe() -> str:
    """What stands beside a time that was measured in this process."""
    return f"freed memory kept ({_kept})" if _kept else "as the C library sets it up"
