"""How much memory a computation takes."""

import ctypes
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


def resident(field: str = "VmRSS") -> float:
    """Mebibytes of this process that are in memory, or another of Linux's counts of them."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def settled() -> float:
    """Mebibytes of this process in memory, once the C library has given back what is free: Linux alone."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()
