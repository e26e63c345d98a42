"""How much memory a computation takes."""

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
    before = _resident("VmRSS")
    yield found
    found.mebibytes = _resident("VmHWM") - before


def _resident(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
