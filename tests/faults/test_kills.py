"""SIGKILL at any instant, and right before anything becomes durable or visible."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.conftest import Whole
from tests.faults.effort import chance, faults
from tests.faults.runs import SHORT, Process, outcome

RUN = (*SHORT, "--out", "run", "--resume")


def test_a_run_that_is_killed_at_random_instants_ends_with_the_same_bytes(
    process: Process, whole: Whole, tmp_path: Path
) -> None:
    """One run after the other, each killed again and again until it is over."""
    random, kills, runs = chance("kills"), 0, 0
    while kills < faults(6):
        folder = tmp_path / str(runs)
        runs += 1
        while True:
            process.begin(folder, "run", *RUN)
            if kills < faults(6) and not process.ends_within(random.uniform(0, whole.ended.seconds)):
                process.send(signal.SIGKILL)
            ended = process.end()
            if ended.status != -signal.SIGKILL:
                break
            kills += 1
        assert ended.status == 0, ended.said
        assert outcome(folder / "run") == whole.left
    print(f"{kills} kills of {runs} runs at random instants")


def test_a_run_that_dies_before_a_call_that_matters_ends_with_the_same_bytes(
    process: Process, whole: Whole, tmp_path: Path
) -> None:
    """One that flushes, renames, removes or makes something; a process that goes on dies before one, too."""
    random, every, died = chance("calls"), whole.ended.calls, 0
    numbers = sorted(random.sample(range(1, every), min(faults(3), every - 1)))
    for number in numbers:
        folder = tmp_path / str(number)
        first = process.play(folder, "run", *RUN, die_at=number)
        assert first.status == -signal.SIGKILL, first.said
        second = process.play(folder, "run", *RUN, die_at=random.randrange(1, every))
        died += 1 + (second.status == -signal.SIGKILL)
        ended = process.play(folder, "run", *RUN)
        assert ended.status == 0, ended.said
        assert outcome(folder / "run") == whole.left
    print(f"{died} deaths before calls {numbers[0]} to {numbers[-1]} of {every}")
