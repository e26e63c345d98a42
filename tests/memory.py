"""How much memory a computation takes, and may take."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak_memory() -> Iterator[SimpleNamespace]:
    """Afterwards `.mebibytes`: by how much this process's memory grew. Skips the test where that cannot be told."""
    found = SimpleNamespace(mebibytes=None)
    if not RESET.exists():
        pytest.skip("there is no /proc/self/clear_refs to forget earlier peaks with")
    RESET.write_text("5")
    before = resident()
    yield found
    found.mebibytes = resident("VmHWM") - before


@contextmanager
def limited_memory(mebibytes: int) -> Iterator[None]:
    """Inside, this process may map so much more than it has: an allocation beyond that fails, even of memory that
    would never be touched."""
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int((resident("VmSize") + mebibytes) * 2**20), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def not_for_memory(error: Exception) -> None:
    """Raises MemoryError where a refusal that is expected came of an allocation that failed."""
    if "alloc" in str(error):
        raise MemoryError from error


def resident(field: str = "VmRSS") -> float:
    """Mebibytes of this process that are in memory, or another of Linux's counts of them."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def settled() -> float:
    """Mebibytes of this process in memory, once the C library has given back what is free: Linux alone."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()
