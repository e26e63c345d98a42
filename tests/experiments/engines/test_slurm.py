"""`--on slurm`: through submitit, whose executor of local processes stands for Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lth_sparse.experiments.engines import slurm
from lth_sparse.experiments.engines.job import Job
from lth_sparse.experiments.engines.slurm import Slurm
from lth_sparse.lottery.playing import Request
from tests.conftest import error_line
from tests.experiments.conftest import Called
from tests.experiments.engines.conftest import FOLDERS, processes, results, undisturbed

ROOT = Path(__file__).resolve().parents[3]


def test_its_jobs_are_submitted_and_one_that_is_killed_is_submitted_again(
    held: Path, swept: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    monkeypatch.setattr(slurm, "COMMANDS", ())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(held)]))
    (held / "kill").touch()
    out = held / "out"
    status, _, error = swept(held / "sweep.yaml", "--out", out, "--on", "slurm", "--slurm", "time=30")
    assert status == 0, error
    assert error.count("its process was lost (UncompletedJobError: ") == 1
    assert sorted(len(processes(out, name)) for name in FOLDERS) == [1, 2]
    assert set((held / "threads").read_text().splitlines()) == {"1 passive 1"}
    assert results(out) == undisturbed(held)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands with Slurm's names, which write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in slurm.COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/called-{name}\necho Submitted batch job 7\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def test_what_is_asked_of_slurm(tmp_path: Path, commands: Path) -> None:
    engine = Slurm(tmp_path / "submitit", None, 2, {"time": "60", "partition": "long", "mem": "4GB"})
    engine.start(Job("run", 0, Request({}, ""), tmp_path))
    engine.stop()
    script = Path((commands / "called-sbatch").read_text().strip()).read_text().splitlines()
    assert {f"#SBATCH --{each}" for each in ("cpus-per-task=2", "time=60", "partition=long", "mem=4GB")} <= set(script)
    assert {"export OMP_NUM_THREADS=2", "export OMP_WAIT_POLICY=passive"} <= set(script)
    assert (commands / "called-scancel").read_text() == "7\n"


def test_what_is_missing_is_named(held: Path, swept: Called, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*options: str) -> str:
        status, _, error = swept(held / "sweep.yaml", "--out", held / "out", "--on", "slurm", *options)
        assert status == 2
        assert not (held / "out" / "sweep.json").exists()
        return error_line(error)

    assert "give --slurm time=MINUTES too" in refused()
    assert "--slurm: NameError: Unknown argument 'partitoin'" in refused("--slurm", "time=5", "--slurm", "partitoin=x")
    assert "expected KEY=VALUE, given time" in refused("--slurm", "time")
    (commands / "sacct").write_text("#!/bin/sh\necho Slurm accounting storage is disabled >&2\nexit 1\n")
    assert "sacct says 'Slurm accounting storage is disabled', so a job that is lost" in refused("--slurm", "time=5")
    (commands / "srun").unlink()
    assert "there is no srun here" in refused("--slurm", "time=5")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'lth_sparse[slurm]'" in refused("--slurm", "time=5")
