"""Two lotteries at once, a thread each, and one after the other with two threads: `python -m bench.two_processes`.

Whoever has several seeds to run on a machine of few cores asks which is faster. Each lottery is a process of its own,
by the command line, with a seed of its own; the time is that of all of it, from before the first begins to after the
last ends. Exit status 1 when two at once take longer than they may.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOTTERY = ("--dataset", "digits", "--device", "cpu", "--rounds", "3", "--iterations", "2000", "--controls", "none")
MUST = 1.1
"""Time of the two at once over that of one after the other."""


def begun(threads: int, seed: int, folder: Path) -> subprocess.Popen[bytes]:
    """A lottery under `folder`, by so many threads."""
    command = [sys.executable, "-m", "lth_sparse.run", *LOTTERY, "--seed", str(seed), "--out", str(folder / f"{seed}")]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(lottery: subprocess.Popen[bytes]) -> None:
    """Waits for it. Raises RuntimeError with its last line when it failed."""
    _, said = lottery.communicate()
    if lottery.returncode:
        raise RuntimeError(f"a lottery failed: {said.decode().strip().splitlines()[-1:]}")


def seconds(at_once: bool) -> float:
    """What two lotteries take, at once by a thread each, or one after the other by two."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if at_once:
            for lottery in [begun(1, seed, Path(folder)) for seed in (0, 1)]:
                ended(lottery)
        else:
            for seed in (0, 1):
                ended(begun(2, seed, Path(folder)))
        return time.perf_counter() - began


def main() -> int:
    """1 when two at once take longer than they may."""
    one_by_one, at_once = seconds(at_once=False), seconds(at_once=True)
    ratio = at_once / one_by_one
    print(
        f"two lotteries: {one_by_one:.1f} s one after the other by two threads, {at_once:.1f} s at once by a thread "
        f"each: {ratio:.2f} times as long, must {MUST}{'  MISSED' if ratio > MUST else ''}"
    )
    return int(ratio > MUST)


if __name__ == "__main__":
    sys.exit(main())
