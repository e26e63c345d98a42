"""A job beside others that want its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lth_sparse.experiments.engines import job as jobs
from lth_sparse.experiments.engines.job import Job, carry_out
from lth_sparse.experiments.engines.local import Local
from lth_sparse.experiments.replicates import Replicates
from lth_sparse.experiments.sweep_file import read
from lth_sparse.lottery.playing import Request
from tests.experiments.conftest import Called
from tests.experiments.engines.conftest import meanwhile, processes, results, undisturbed


def test_a_run_that_another_process_still_plays_is_waited_for(held: Path, swept: Called) -> None:
    out, spec = held / "out", read(held / "sweep.yaml")
    (held / "wait").touch()
    # As if of a sweep that was killed (SIGKILL), which leaves its jobs running.
    left = Local(1, 1)
    left.start(
        Job("rewound", 0, Replicates(Request(spec.runs["rewound"], "", out / "rewound"), 1).asked(0), out / "job_logs")
    )
    log = out / "job_logs" / "rewound-seed-0.log"
    with meanwhile(lambda: log.exists() and "writing there; wait for it; waiting" in log.read_text(),
                   (held / "wait").unlink):  # fmt: skip
        status, _, error = swept(held / "sweep.yaml", "--out", out, "--resume", "--jobs", 2)
    assert status == 0, error
    assert [how for _, how in left.wait()] == [""]
    assert len(processes(out, "rewound")) == 2
    assert log.read_text().count("round 1/1: ") == 1, "played twice"
    assert "is finished already" in log.read_text()
    assert results(out) == undisturbed(held)


def test_what_nobody_expected_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(_: Request) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(jobs.replicates, "play_seed", mistaken)
    job = Job("run", 0, Request({}, ""), tmp_path)
    carry_out(job)
    assert job.failure.read_text() == "ZeroDivisionError: a mistake"
