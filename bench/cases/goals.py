"""What a figure has to reach, and the goals that are those of more than one layer or network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What a ratio must reach and what it aims at, on the processors that it was set for: 2 threads, AVX-512."""

    must: float
    aim: float

    def verdict(self, ratio: float) -> str:
        """What became of it."""
        if ratio < self.must:
            return "MISSED"
        return "aim reached" if ratio >= self.aim else "holds"


TEN_STEPS = 10
FASTER_PACKING = Goal(1.0, 1.0)
"""Ten forward and backward passes of a layer over packing its mask."""
SMALLER_MEMORY = Goal(1.0, 1.0)
"""Peak memory of masked dense training steps over that of sparse ones."""
NEVER_SLOWER = Goal(0.99, 1.0)
"""Of the auto backend, against dense."""

DENSE_SPARSITY = 0.95
"""Of the mask of masked dense PyTorch, whose time does not depend on it: it is measured once for several rows."""


def goals(*rows: tuple[float, float, float]) -> dict[float, Goal | None]:
    """Sparsity -> goal, from (sparsity, must, aim)."""
    return {sparsity: Goal(must, aim) for sparsity, must, aim in rows}
