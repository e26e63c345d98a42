"""Sides timed in turn in one process, and the ratios that come of it."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.cases import Goal

FEWEST_TURNS = 5
MOST_TURNS = 200
LEAST_WARM_UP = 2
MOST_WARM_UP = 6
FEW_FAULTS = 100
"""Minor page faults in a turn that cost no time worth a word: one takes less than a microsecond."""

Side = Mapping[str, Callable[[], Any]]
"""The parts of one side by name, such as forward and backward; its time is their sum."""


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
        if self.must is None or self.aim is None:
            return ""
        if self.ratio < self.must:
            return "MISSED"
        return "aim reached" if self.ratio >= self.aim else "holds"


@dataclass
class Findings:
    """What was found: `rows`, and the times or sizes of the `sides` that they compare, JSON-ready."""

    rows: list[Row] = field(default_factory=list)
    sides: list[dict[str, Any]] = field(default_factory=list)

    def add(self, more: Findings) -> None:
        """Fails when a ratio is none. What it has to reach depends on the machine, and is not asserted."""
        for row in more.rows:
            assert 0 < row.ratio < math.inf, row
        self.rows += more.rows
        self.sides += more.sides


class Contest:
    """Times `sides` in turn, each next turn in the opposite order, and counts the page faults of each."""

    def __init__(self, case: str, sides: Mapping[str, Side]) -> None:
        self._case = case
        self._sides = sides
        self._forget()

    def _forget(self) -> None:
        self._turns = 0
        self._seconds: dict[str, dict[str, list[float]]] = {
            name: {part: [] for part in side} for name, side in self._sides.items()
        }
        self._faults: dict[str, list[int]] = {name: [] for name in self._sides}

    def warm_up(self, seconds: float) -> int:
        """How many turns then take about `seconds`. Goes on while a turn faults: a heap takes a few to settle."""
        for number in range(1, MOST_WARM_UP + 1):
            began = time.perf_counter()
            self.turn()
            took = time.perf_counter() - began
            settled = sum(faults[-1] for faults in self._faults.values()) < FEW_FAULTS
            if settled and number >= LEAST_WARM_UP:
                break
        self._forget()
        return max(FEWEST_TURNS, min(MOST_TURNS, int(seconds / took)))

    def turn(self) -> None:
        """Every part of every side once."""
        for name in list(self._sides)[:: -1 if self._turns % 2 else 1]:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for part, call in self._sides[name].items():
                began = time.perf_counter()
                call()
                self._seconds[name][part].append(time.perf_counter() - began)
            self._faults[name].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
        self._turns += 1

    def times(self, side: str) -> list[float]:
        """Seconds of `side`, turn by turn."""
        return [sum(parts) for parts in zip(*self._seconds[side].values(), strict=True)]

    def best(self, sides: Iterable[str]) -> str:
        """The one of `sides` that took the least time."""
        return min(sides, key=lambda side: min(self.times(side)))

    def row(
        self, ours: str, against: str, sparsity: float, goal: Goal | None = None, note: str = "", times: int = 1
    ) -> Row:
        """The time of `against`, done `times` over, over that of `ours`."""
        own, other = self.times(ours), [times * seconds for seconds in self.times(against)]
        low, _, high = statistics.quantiles([b / a for a, b in zip(own, other, strict=True)], n=4, method="inclusive")
        faults = {side: statistics.median(self._faults[side]) for side in (ours, against)}
        if max(faults.values()) >= FEW_FAULTS:
            counts = ", ".join(f"{side} {count:g}" for side, count in faults.items())
            note = "; ".join(filter(None, [note, f"page faults a turn: {counts}"]))
        return Row(
            self._case,
            sparsity,
            ours,
            against,
            _rounded(min(other) / min(own)),
            _rounded(statistics.median(other) / statistics.median(own)),
            (_rounded(low), _rounded(high)),
            goal.must if goal else None,
            goal.aim if goal else None,
            note,
        )

    def summary(self) -> list[dict[str, Any]]:
        """The times of each side in milliseconds, JSON-ready; `faults`: the median of a turn's minor page faults."""
        found = []
        for side, parts in self._seconds.items():
            times = self.times(side)
            low, median, high = statistics.quantiles(times, n=4, method="inclusive")
            named = {"minimum": min(times), "lower_quartile": low, "median": median, "upper_quartile": high}
            found.append(
                {"case": self._case, "side": side, "turns": self._turns}
                | {name: _rounded(1000 * value) for name, value in named.items()}
                | {"faults": statistics.median(self._faults[side])}
                | {"minima": {part: _rounded(1000 * min(values)) for part, values in parts.items()}}
            )
        return found


def memory(case: str, sparsity: float, peaks: Mapping[str, Mapping[str, float]], goal: Goal) -> Findings:
    """From the peaks of "dense" and "cpp" in MiB, measured once each: as `networks.peak_memory` gives them."""

    def row(kind: str, goal: Goal | None) -> Row:
        ratio = _rounded(peaks["dense"][kind] / peaks["cpp"][kind])
        must, aim = (goal.must, goal.aim) if goal else (None, None)
        return Row(case, sparsity, "cpp", "masked dense", ratio, ratio, None, must, aim, f"peak memory, {kind}")

    sides = [{"case": case, "side": side, "peak_mib": peaks[side]} for side in peaks]
    return Findings([row("allocated", goal), row("resident", None)], sides)


def _rounded(value: float) -> float:
    """Four digits: no time here is known better."""
    return float(f"{value:.4g}")
