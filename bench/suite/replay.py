"""Times that were taken already, given to pytest-benchmark as if it took them.

It times one function after the other; here all sides were timed in turn, so that a noisy machine favours none.
"""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from bench.timing.operation import Operation


class Clock:
    """Stands still, but for what a replay adds."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The timer that pytest-benchmark reads before and after each round."""
        return self._now

    def replay(self, benchmark: BenchmarkFixture, operation: Operation) -> None:
        """A round for each of its turns; `benchmark` has this clock for its timer."""
        turns = iter(operation.seconds)
        benchmark.group = f"{operation.table}, {operation.operation}"
        benchmark.extra_info |= operation.as_dict()

        def advance() -> None:
            self._now += next(turns)

        benchmark.pedantic(advance, rounds=len(operation.seconds))


CLOCK = Clock()
