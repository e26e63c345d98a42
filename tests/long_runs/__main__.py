"""`python -m tests.long_runs [--steps N] [--repackings N]`: exit status 0 where memory stays flat, 1 where it does not.

A line for each way to compute the layers and each optimizer. The first quarter of a training warms up: kernels get
their work space, `auto` chooses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.long_runs.training import BACKENDS, OPTIMIZERS, SAMPLES, resident_while

MOST = 0.02
"""How much larger the process may become than it was at most while it warmed up, over that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was measured; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.long_runs", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="of each training (default: 20000)")
    parser.add_argument("--repackings", type=int, default=50, help="in each training, at least 8 (default: 50)")
    given = parser.parse_args(arguments)
    if given.repackings < 8:
        parser.error(f"--repackings {given.repackings}: expected at least 8")
    if given.steps < SAMPLES * given.repackings:
        parser.error(f"--steps {given.steps}: expected at least {SAMPLES} for each of --repackings")
    print(f"{given.steps} steps, {given.repackings} repackings; mebibytes resident, must stay within {MOST:.0%}")
    missed = False
    for backend in BACKENDS:
        for optimizer in OPTIMIZERS:
            began = time.perf_counter()
            sampled = list(resident_while(backend, optimizer, given.steps, given.repackings))
            quarter = len(sampled) // 4
            warm, later = max(sampled[:quarter]), sampled[quarter:]
            growth = max(later) / warm - 1
            missed |= growth > MOST
            print(
                f"{backend:12} {optimizer:4}  warm {warm:6.1f}  largest {max(later):6.1f}  last {later[-1]:6.1f}  "
                f"{growth:+.2%}  {time.perf_counter() - began:.0f} s{'  MISSED' if growth > MOST else ''}",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
