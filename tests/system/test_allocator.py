"""The heap of the command line keeps what is freed; that of a process that only imports the library is left alone."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# Pages of 4 KiB or, where the system gives huge ones unasked, of 2 MiB: 64 MB are at least 32 of them.
FEWEST_FAULTS, MOST_FAULTS, MOST_FAULTS_OF_GROWTH = 32, 8, 2000
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SCRIPT = """
import resource, torch, lth_sparse, lth_sparse.run
from lth_sparse.system import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(16 * 2**20).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

faults()
imported = faults()
said = allocator.describe()
allocator.keep_freed_memory()
faults()
kept = faults()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(64 * 2**20).fill_(1)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(imported, kept, grown, said, allocator.describe(), sep="|")
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_large_tensors_cost_page_faults_until_the_program_says_otherwise() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    imported, kept, grown, *said = done.stdout.strip().split("|")
    assert float(imported) >= FEWEST_FAULTS
    assert float(kept) <= MOST_FAULTS
    huge_pages = HUGE_PAGES.exists()
    assert said == [
        "as the C library sets it up",
        f"freed memory kept (mallopt{', huge pages where the system has them' if huge_pages else ''})",
    ]
    # 192 MB more than it ever was: 96 huge pages, or 49,152 small ones.
    if huge_pages and "[never]" not in HUGE_PAGES.read_text():
        assert int(grown) <= MOST_FAULTS_OF_GROWTH


def test_without_mallopt_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from lth_sparse.system import allocator

    monkeypatch.setattr(allocator, "_kept", "")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
    assert allocator.describe() == "as the C library sets it up"
