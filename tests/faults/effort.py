"""How many faults are made, and which: few in `make test`, LTH_SPARSE_FAULTS in `make faults`."""

from __future__ import annotations

import os
import random

LONG = os.environ.get("LTH_SPARSE_FAULTS")
SEED = int(os.environ.get("LTH_SPARSE_SEED") or (random.SystemRandom().randrange(2**32) if LONG else 0))


def faults(few: int) -> int:
    """`few`, or as many as asked for."""
    return int(LONG or few)


def chance(name: str) -> random.Random:
    """What the faults of one test are drawn from. Its seed is shown where the test fails, and by `make faults`."""
    print(f"LTH_SPARSE_SEED={SEED} ({name})")
    return random.Random(f"{SEED} {name}")
