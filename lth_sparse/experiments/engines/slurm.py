"""Slurm, through submitit: each job a batch job of its own."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth_sparse.experiments.engines.job import Job, carry_out_alone, variables
from lth_sparse.system.errors import InputError, because

CLUSTER, COMMANDS = "slurm", ("sbatch", "srun", "sacct", "scancel")
"""What submitit calls it, and what it calls."""
SECONDS_BETWEEN_LOOKS = 1.0


class Slurm:
    """An `Engine` of batch jobs with `threads` cores each, at most `jobs` of them at once.

    `folder`: for what submitit writes. `parameters`: of submitit's `SlurmExecutor`, `time` among them, in minutes.
    Raises InputError where there is no Slurm, or no such parameter.
    """

    elsewhere = True

    def __init__(self, folder: Path, jobs: int | None, threads: int, parameters: Mapping[str, str]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError(
                "--on slurm needs the package submitit, which is not installed: pip install 'lth_sparse[slurm]'"
            ) from error
        if missing := [name for name in COMMANDS if shutil.which(name) is None]:
            raise InputError(f"--on slurm: there is no {missing[0]} here; call it where Slurm's commands are")
        if why := _unaccounted():
            raise InputError(
                f"--on slurm: sacct says {why!r}, so a job that is lost would never be noticed; a Slurm that keeps "
                "account of its jobs (AccountingStorageType) is needed, or --on local in a job of your own"
            )
        others = dict(parameters)
        if not (minutes := others.pop("time", "")).isdigit():
            raise InputError("--on slurm: give --slurm time=MINUTES too, the most that Slurm lets a job take")
        self.jobs = jobs
        self._running: list[tuple[Job, Any]] = []
        self._executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        self._threads = threads
        exports = [f"export {name}={value}" for name, value in variables(threads).items()]
        try:
            self._executor.update_parameters(
                name="lth_sparse",
                cpus_per_task=threads,
                timeout_min=int(minutes),
                **{f"{CLUSTER}_setup": exports},
                **{f"slurm_{name}": int(value) if value.isdigit() else value for name, value in others.items()},
            )
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise InputError(f"--slurm: {because(error)}") from error

    def start(self, job: Job) -> None:
        """Submits it."""
        self._running.append((job, self._executor.submit(carry_out_alone, job, self._threads)))

    def wait(self) -> list[tuple[Job, str]]:
        """Those that Slurm says are over, or that have left their result."""
        while not (ended := [pair for pair in self._running if pair[1].done()]):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._running = [pair for pair in self._running if pair not in ended]
        return [(job, _how(submitted)) for job, submitted in ended]

    def stop(self) -> None:
        """Cancels them."""
        for _, submitted in self._running:
            submitted.cancel(check=False)


def _unaccounted() -> str:
    """What sacct says where it cannot tell of jobs: submitit learns from it alone of one that is lost."""
    if "sacct" not in COMMANDS:
        return ""
    asked = subprocess.run(["sacct", "--noheader", "--jobs", "1"], capture_output=True, text=True)
    return (asked.stderr or asked.stdout).strip() or f"exit status {asked.returncode}" if asked.returncode else ""


def _how(submitted: Any) -> str:
    error = submitted.exception()
    return "" if error is None else because(error)
