"""A machine that is not ours alone: a process that takes all that it is given of core 0."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CORE = 0
SPIN = f"import os; os.sched_setaffinity(0, {{{CORE}}})\nwhile True: pass"


@contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """The process spins until the block is left. Linux only."""
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
