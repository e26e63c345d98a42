"""One operation of one side: its time beside that of the best dense layout and beside what the machine could do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.timing.ceilings import Ceilings
from bench.timing.work import Work, least_seconds


@dataclass(frozen=True)
class Operation:
    """A line of a group's table. `speedup`: least time of the best dense layout over that of this one.

    `speedup_quartiles`: the lower and the upper one of the ratios turn by turn. `gflops`: on live weights, whoever
    multiplies the others too. `of_ceiling`: the least time that the live weights' work needs on this machine, over the
    time taken. `error`: largest difference from float64 over the largest entry.
    """

    device: str
    case: str
    sparsity: float
    operation: str
    side: str
    layout: str
    seconds: list[float]
    """Turn by turn."""
    speedup: float
    speedup_quartiles: tuple[float, float]
    gflops: float
    of_ceiling: float
    error: float

    @property
    def table(self) -> str:
        """What stands in one table: the operations of one case at one sparsity."""
        return f"{self.case}, {self.sparsity:.0%}, {self.device}"

    @property
    def milliseconds(self) -> tuple[float, float, float, float]:
        """Minimum, lower quartile, median, upper quartile."""
        low, median, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        least, low, median, high = (rounded(1000 * value) for value in (min(self.seconds), low, median, high))
        return least, low, median, high

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with times in milliseconds in the place of the turns."""
        found = asdict(self)
        turns = found.pop("seconds")
        names = ("minimum", "lower_quartile", "median", "upper_quartile")
        return found | {"turns": len(turns)} | dict(zip(names, self.milliseconds, strict=True))


def operation(
    about: tuple[str, str, float, str],
    side: tuple[str, str],
    seconds: Sequence[float],
    dense: Sequence[float],
    works: Sequence[Work],
    ceilings: Ceilings,
    error: float,
) -> Operation:
    """From (device, case, sparsity, operation), (side, layout), and the seconds of both, turn by turn."""
    ratios = [theirs / ours for ours, theirs in zip(seconds, dense, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    least = min(seconds)
    return Operation(
        *about,
        *side,
        list(seconds),
        rounded(min(dense) / least),
        (rounded(low), rounded(high)),
        rounded(sum(work.operations for work in works) / least / 1e9),
        rounded(least_seconds(works, ceilings) / least),
        rounded(error),
    )


def rounded(value: float) -> float:
    """To four digits: no time here is known better."""
    return float(f"{value:.4g}")
