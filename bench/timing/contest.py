"""Sides timed in turn in one process, and their times."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.cases.goals import Goal
from bench.timing.operation import rounded
from bench.timing.row import Row
from bench.timing.stopwatch import Stopwatch

FEWEST_TURNS = 5
MOST_TURNS = 200
LEAST_WARM_UP = 2
MOST_WARM_UP = 6
FEW_FAULTS = 100
"""Minor page faults in a turn that cost no time worth a word: one takes less than a microsecond."""

Side = Mapping[str, Callable[[], Any]]
"""The parts of one side by name, such as forward and backward; its time is their sum."""


@dataclass
class Times:
    """What a contest took, turn by turn: seconds by side and part, and the minor page faults of each side."""

    case: str
    seconds: dict[str, dict[str, list[float]]]
    faults: dict[str, list[int]]

    def of(self, side: str, part: str | None = None) -> list[float]:
        """Seconds of one part of `side`, or of all together, turn by turn."""
        parts = self.seconds[side]
        return parts[part] if part else [sum(turn) for turn in zip(*parts.values(), strict=True)]

    def best(self, sides: Iterable[str]) -> str:
        """The one of `sides` that took the least time."""
        return min(sides, key=lambda side: min(self.of(side)))

    def row(
        self, ours: str, against: str, sparsity: float, goal: Goal | None = None, note: str = "", times: int = 1
    ) -> Row:
        """The time of `against`, done `times` over, over that of `ours`."""
        own, other = self.of(ours), [times * seconds for seconds in self.of(against)]
        low, _, high = statistics.quantiles([b / a for a, b in zip(own, other, strict=True)], n=4, method="inclusive")
        faults = {side: statistics.median(self.faults[side]) for side in (ours, against)}
        if max(faults.values()) >= FEW_FAULTS:
            counts = ", ".join(f"{side} {count:g}" for side, count in faults.items())
            note = "; ".join(filter(None, [note, f"page faults a turn: {counts}"]))
        return Row(
            self.case,
            sparsity,
            ours,
            against,
            rounded(min(other) / min(own)),
            rounded(statistics.median(other) / statistics.median(own)),
            (rounded(low), rounded(high)),
            goal.must if goal else None,
            goal.aim if goal else None,
            note,
        )

    def summary(self) -> list[dict[str, Any]]:
        """The times of each side in milliseconds, JSON-ready; `faults`: the median of a turn's minor page faults."""
        found = []
        for side, parts in self.seconds.items():
            times = self.of(side)
            low, median, high = statistics.quantiles(times, n=4, method="inclusive")
            named = {"minimum": min(times), "lower_quartile": low, "median": median, "upper_quartile": high}
            found.append(
                {"case": self.case, "side": side, "turns": len(times)}
                | {name: rounded(1000 * value) for name, value in named.items()}
                | {"faults": statistics.median(self.faults[side])}
                | {"minima": {part: rounded(1000 * min(values)) for part, values in parts.items()}}
            )
        return found


class Contest:
    """Times `sides` in turn, each next turn in the opposite order, and counts the page faults of each."""

    def __init__(self, case: str, sides: Mapping[str, Side], watch: Stopwatch) -> None:
        self._case, self._watch = case, watch
        self._sides = {
            name: {part: watch.prepared(call) for part, call in side.items()} for name, side in sides.items()
        }

    def run(self, seconds: float) -> Times:
        """As many turns as take about `seconds`, after a warm-up."""
        took = self._warm_up()
        times = self._no_times()
        for number in range(max(FEWEST_TURNS, min(MOST_TURNS, int(seconds / took)))):
            self._turn(times, backwards=number % 2 == 1)
        return times

    def _warm_up(self) -> float:
        """Seconds of its last turn. It goes on while a turn faults: a heap takes a few to settle."""
        for number in range(1, MOST_WARM_UP + 1):
            times = self._no_times()
            began = time.perf_counter()
            self._turn(times, backwards=number % 2 == 1)
            took = time.perf_counter() - began
            if number >= LEAST_WARM_UP and sum(faults[0] for faults in times.faults.values()) < FEW_FAULTS:
                break
        return took

    def _no_times(self) -> Times:
        empty: dict[str, dict[str, list[float]]] = {
            name: {part: [] for part in side} for name, side in self._sides.items()
        }
        return Times(self._case, empty, {name: [] for name in self._sides})

    def _turn(self, times: Times, backwards: bool) -> None:
        """Every part of every side once."""
        for name in list(self._sides)[:: -1 if backwards else 1]:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for part, call in self._sides[name].items():
                times.seconds[name][part].append(self._watch.seconds(call))
            times.faults[name].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
