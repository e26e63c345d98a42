"""Jobs run once at a time, and again where their process was lost; on an engine of a few lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from lth_sparse.experiments.engines import dispatch
from lth_sparse.experiments.engines.dispatch import dispatched
from lth_sparse.experiments.engines.job import Job
from lth_sparse.lottery.playing import Request
from lth_sparse.system.errors import InputError


class Told:
    """An engine that does to the jobs what it is told, in turn: "finish", "fail", "nothing", or how it loses one."""

    def __init__(self, fates: dict[int, Sequence[str]], jobs: int | None = None, elsewhere: bool = False) -> None:
        self.jobs, self.elsewhere = jobs, elsewhere
        self.fates = {seed: list(each) for seed, each in fates.items()}
        self.running: list[Job] = []
        self.finished: set[str] = set()
        self.most = 0

    def start(self, job: Job) -> None:
        assert job not in self.running, "twice at once"
        assert job.name not in self.finished, "once more"
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def wait(self) -> list[tuple[Job, str]]:
        job = self.running.pop(0)
        fate = self.fates[job.seed].pop(0)
        if fate == "finish":
            self.finished.add(job.name)
        elif fate == "fail":
            job.failure.write_text("a reason of its own")
        return [(job, "" if fate in ("finish", "fail", "nothing") else fate)]

    def stop(self) -> None:
        pass


def ends(engine: Told, logs: Path, retries: int = 3) -> list[tuple[int, str]]:
    queue = deque(Job("run", seed, Request({}, ""), logs) for seed in engine.fates)
    found = dispatched(engine, queue, lambda job: job.name in engine.finished, retries)
    return [(job.seed, failed) for job, failed in found]


def test_a_lost_job_is_started_again_and_one_that_failed_is_not(tmp_path: Path) -> None:
    engine = Told({0: ["killed", "killed", "finish"], 1: ["fail"], 2: ["finish"]}, jobs=1)
    assert ends(engine, tmp_path) == [(0, ""), (1, "a reason of its own"), (2, "")]
    assert engine.most == 1


def test_no_more_than_it_may(tmp_path: Path) -> None:
    engine = Told({seed: ["finish"] for seed in range(5)}, jobs=2)
    assert len(ends(engine, tmp_path)) == 5
    assert engine.most == 2
    engine = Told({seed: ["finish"] for seed in range(5)})
    assert len(ends(engine, tmp_path)) == 5
    assert engine.most == 5


def test_a_job_that_is_lost_again_and_again_fails(tmp_path: Path) -> None:
    engine = Told({0: ["killed"] * 3 + ["nothing"], 1: ["finish"]}, jobs=1)
    assert ends(engine, tmp_path) == [(0, "its process was lost 4 times, at last: it ended before its run"), (1, "")]
    assert ends(Told({0: ["killed"]}), tmp_path, retries=0) == [(0, "its process was lost 1 times, at last: killed")]


def test_why_it_failed_before_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "run-seed-0.failed").write_text("a reason of before")
    assert ends(Told({0: ["finish"]}), tmp_path) == [(0, "")]


def test_a_job_lost_behind_its_end_has_ended(tmp_path: Path) -> None:
    engine = Told({0: ["killed"]})
    engine.start = lambda job: (engine.running.append(job), engine.finished.add(job.name))  # type: ignore[assignment]
    assert ends(engine, tmp_path) == [(0, "")]


def test_what_is_finished_already_is_not_started(tmp_path: Path) -> None:
    engine = Told({0: [], 1: ["finish"], 2: []})
    engine.finished.update({"run-seed-0", "run-seed-2"})
    assert ends(engine, tmp_path) == [(0, ""), (2, ""), (1, "")]
    engine.fates = {0: []}
    assert ends(engine, tmp_path) == [(0, "")]


def test_files_that_do_not_show_here_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SECONDS_TO_APPEAR", 0)
    with pytest.raises(InputError, match="on a file system that all machines see"):
        ends(Told({0: ["nothing"]}, elsewhere=True), tmp_path / "job_logs")
    assert ends(Told({0: ["killed", "finish"]}, elsewhere=True), tmp_path) == [(0, "")]
