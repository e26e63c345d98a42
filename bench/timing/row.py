"""One ratio, what became of its goal, and all that a contest found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.cases.goals import Goal
from bench.timing.operation import Operation


@dataclass(frozen=True)
class Row:
    """One figure. `ours` over `against`: names of sides. More is better.

    `by_minimum` and `by_median`: minimum over minimum and median over median. `quartiles`: the lower and the upper one
    of the ratios turn by turn; None where there was one turn only. `note`: what else a reader should know.
    """

    case: str
    sparsity: float
    ours: str
    against: str
    by_minimum: float
    by_median: float
    quartiles: tuple[float, float] | None = None
    must: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """The lower of the two, by which a row is judged."""
        return min(self.by_minimum, self.by_median)

    @property
    def verdict(self) -> str:
        """What became of the goal, if there is one."""
        return "" if self.must is None or self.aim is None else Goal(self.must, self.aim).verdict(self.ratio)


@dataclass
class Findings:
    """What was found: `rows`, the times or sizes of the `sides` that they compare, JSON-ready, and each operation."""

    rows: list[Row] = field(default_factory=list)
    sides: list[dict[str, Any]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def operation(self, sparsity: float, name: str, side: str) -> Operation:
        """The one of `side` that has this name."""
        wanted = (sparsity, name, side)
        (found,) = [each for each in self.operations if (each.sparsity, each.operation, each.side) == wanted]
        return found
