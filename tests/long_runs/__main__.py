"""`python -m tests.long_runs [--steps N] [--repackings N]`: exit status 0 where memory stays flat, 1 where it does not.

A line for each way to compute the layers and each optimizer, and one for a network that only infers. The first
quarter warms up: kernels get their work space, `auto` chooses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

from lth_sparse.inference import engine
from tests.long_runs import inference
from tests.long_runs.training import BACKENDS, OPTIMIZERS, SAMPLES, resident_while

MOST = 0.02
"""How much larger the process may become than it was at most while it warmed up, over that."""
INFERENCE_SAMPLES = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was measured; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.long_runs", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="of each training (default: 20000)")
    parser.add_argument("--repackings", type=int, default=50, help="in each training, at least 8 (default: 50)")
    parser.add_argument("--calls", type=int, default=10_000, help="of the network that infers (default: 10000)")
    given = parser.parse_args(arguments)
    if given.repackings < 8:
        parser.error(f"--repackings {given.repackings}: expected at least 8")
    if given.steps < SAMPLES * given.repackings:
        parser.error(f"--steps {given.steps}: expected at least {SAMPLES} for each of --repackings")
    if given.calls < (fewest := inference.THREADS * INFERENCE_SAMPLES):
        parser.error(f"--calls {given.calls}: expected at least {fewest}")
    print(
        f"{given.steps} steps, {given.repackings} repackings, {given.calls} calls; "
        f"mebibytes resident, must stay within {MOST:.0%}"
    )
    flat = [
        _is_flat(f"{backend:12} {optimizer:4}", resident_while(backend, optimizer, given.steps, given.repackings))
        for backend in BACKENDS
        for optimizer in OPTIMIZERS
    ]
    if not engine.refuses():
        flat.append(_is_flat("inference".ljust(17), inference.resident_while(given.calls, INFERENCE_SAMPLES)))
    return int(not all(flat))


def _is_flat(who: str, sampled: Iterable[float]) -> bool:
    began = time.perf_counter()
    mebibytes = list(sampled)
    quarter = len(mebibytes) // 4
    warm, later = max(mebibytes[:quarter]), mebibytes[quarter:]
    growth = max(later) / warm - 1
    print(
        f"{who}  warm {warm:6.1f}  largest {max(later):6.1f}  last {later[-1]:6.1f}  {growth:+.2%}  "
        f"{time.perf_counter() - began:.0f} s{'  MISSED' if growth > MOST else ''}",
        flush=True,
    )
    return growth <= MOST


if __name__ == "__main__":
    sys.exit(main())
