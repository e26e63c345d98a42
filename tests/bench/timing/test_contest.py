"""How sides are timed, and the ratios that come of it."""

from __future__ import annotations

from bench.timing.contest import Contest, Times
from bench.timing.stopwatch import HostStopwatch


def test_sides_take_turns_in_both_orders() -> None:
    called = []
    sides = {name: {"part": lambda name=name: called.append(name)} for name in "abc"}
    times = Contest("case", sides, HostStopwatch()).run(0.0)
    timed = "".join(called)[-3 * len(times.of("a")) :]
    assert timed.startswith("abccbaabc")
    assert all(len(times.of(name)) == len(times.faults[name]) for name in "abc")


def test_a_row_is_minimum_over_minimum_and_median_over_median() -> None:
    seconds = {"ours": {"one": [1.0, 2.0, 1.0], "two": [1.0, 2.0, 3.0]}, "dense": {"all": [8.0, 6.0, 40.0]}}
    row = Times("case", seconds, {"ours": [0, 0, 0], "dense": [0, 5000, 5000]}).row("ours", "dense", 0.9)
    assert (row.by_minimum, row.by_median, row.ratio) == (6 / 2, 8 / 4, 2.0)
    assert "dense 5000" in row.note
