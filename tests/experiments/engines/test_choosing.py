"""Which engine a command line asks for, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lth_sparse.experiments.engines import choosing
from lth_sparse.experiments.engines.choosing import Asked, engine
from lth_sparse.experiments.engines.local import Local
from tests.conftest import error_line
from tests.experiments.conftest import Called


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on", "cloud"), "argument --on: invalid choice: 'cloud' (choose from"),
        (("--jobs", "0"), "argument --jobs: expected a whole number from 1 on, given 0"),
        (("--threads-per-job", "many"), "argument --threads-per-job: expected a whole number from 1 on, given many"),
        (("--retries", "-1"), "argument --retries: expected a whole number from 0 on, given -1"),
        (("--address", "head:6379"), "--address: it is of a Ray cluster; give --on ray too"),
        (("--slurm", "time=60"), "--slurm: it is for Slurm; give --on slurm too"),
    ],
)
def test_a_mistake_is_named(held: Path, swept: Called, options: tuple[str, ...], message: str) -> None:
    status, _, error = swept(held / "sweep.yaml", "--out", held / "out", *options)
    assert (status, message in error_line(error)) == (2, True), error
    assert not (held / "out").exists()


def test_a_gpu_has_one_job_at_a_time_unless_more_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "cores", lambda: 8)

    def jobs(devices: set[str], asked: int | None = None) -> int | None:
        found = engine(Asked(jobs=asked), 100, devices, tmp_path)
        assert isinstance(found, Local)
        return found.jobs

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jobs({"auto", "cpu"}) == 8
    assert jobs({"cpu", "cuda:1"}) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert jobs({"auto"}) == 1
    assert jobs({"cpu"}) == 8
    assert jobs({"auto"}, 3) == 3
