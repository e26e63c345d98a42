"""`--on local`: jobs in processes of this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lth_sparse.experiments.engines.local import shared_out
from tests.experiments.conftest import Called
from tests.experiments.engines.conftest import FOLDERS, meanwhile, processes, results, undisturbed


def test_two_at_once_give_what_one_after_the_other_gives(held: Path, swept: Called) -> None:
    spec, out = held / "with-one-that-fails.yaml", held / "out"
    spec.write_text((held / "sweep.yaml").read_text() + "  diverging: {optimizer: sgd, learning_rate: 1e30}\n")
    (held / "wait").touch()
    with meanwhile(lambda: all(processes(out, name) for name in FOLDERS), (held / "wait").unlink):
        status, said, error = swept(spec, "--out", out, "--jobs", 2)
    assert (status, said.startswith("2 of 3 runs; ")) == (2, True), error
    assert "diverging failed: training diverged" in error
    assert results(out) == undisturbed(held)
    log = (out / "job_logs" / "rewound-seed-0.log").read_text()
    assert "round 1/1: " in log
    assert log.endswith("finished\n")


def test_a_killed_job_goes_on_and_gives_what_it_would_have(held: Path, swept: Called) -> None:
    (held / "kill").touch()
    out = held / "out"
    status, _, error = swept(held / "sweep.yaml", "--out", out, "--threads-per-job", 1, "--jobs", 1)
    assert status == 0, error
    assert "rewound-seed-0: its process was lost (signal 9, Killed); started again, 1 of 3 times" in error
    assert [len(processes(out, name)) for name in FOLDERS] == [2, 1]
    assert (held / "threads").read_text().splitlines() == ["1 passive 1"] * 3
    assert results(out) == undisturbed(held)


def test_ended_by_a_signal_it_ends_its_jobs_and_goes_on_later(held: Path, swept: Called) -> None:
    spec, out = held / "sweep.yaml", held / "out"
    (held / "wait").touch()
    with meanwhile(
        lambda: all((out / name / "seed-0" / "state" / "000000.safetensors").exists() for name in FOLDERS),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    ):
        status, _, error = swept(spec, "--out", out, "--jobs", 2)
    assert (status, "stopped by SIGTERM" in error) == (143, True)
    for name in FOLDERS:
        (process,) = processes(out, name)
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    (held / "wait").unlink()
    assert swept(spec, "--out", out, "--resume")[0] == 0
    assert results(out) == undisturbed(held)


@pytest.mark.parametrize(
    ("wanted", "jobs", "threads", "expected"),
    [
        (100, None, None, (8, 1)),
        (2, None, None, (2, 4)),
        (3, None, None, (3, 2)),
        (100, 4, None, (4, 2)),
        (100, None, 3, (2, 3)),
        (100, 20, None, (20, 1)),
        (100, None, 16, (1, 16)),
        (100, 5, 5, (5, 5)),
    ],
)
def test_cores_are_shared_out(wanted: int, jobs: int | None, threads: int | None, expected: tuple[int, int]) -> None:
    assert shared_out(8, wanted, jobs, threads) == expected
