"""A job of a sweep: the lottery of one run on one seed, in a process of its own."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lth_sparse.experiments import replicates
from lth_sparse.lottery.playing import Request
from lth_sparse.storage.files import write_atomically
from lth_sparse.storage.run_directory import InUse
from lth_sparse.system import allocator
from lth_sparse.system.errors import reason
from lth_sparse.system.messages import say

SECONDS_BETWEEN_TRIES = 2.0


@dataclass(frozen=True)
class Job:
    """A run of a sweep, by its folder, on a seed. `asked`: of `replicates.play_seed`. `logs`: the directory of what
    jobs say."""

    run: str
    seed: int
    asked: Request
    logs: Path

    @property
    def name(self) -> str:
        """Of its files, as no other job has it."""
        return f"{self.run}-{replicates.PREFIX}{self.seed}"

    @property
    def log(self) -> Path:
        """What it said, each of its processes after the one before."""
        return self.logs / f"{self.name}.log"

    @property
    def failure(self) -> Path:
        """Why it failed. Not there where it did not, or where its process was lost."""
        return self.logs / f"{self.name}.failed"


def variables(threads: int) -> dict[str, str]:
    """What the environment of a job's process has to say before PyTorch is imported. Threads that wait must not spin,
    or they keep other jobs from working."""
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}


def carry_out(job: Job) -> None:
    """Plays the run of `job`, or what is left of it, or waits for the process that does. Why it failed is written
    down, and not tried again."""
    said = ""
    while True:
        try:
            replicates.play_seed(job.asked)
            return
        except InUse as error:  # By a job of this sweep that was thought lost, or of one that was killed.
            if str(error) != said:
                say(f"{error}; waiting")
            said = str(error)
            time.sleep(SECONDS_BETWEEN_TRIES)
        except Exception as error:  # Whatever it is, the others are worth playing.
            write_atomically(job.failure, reason(error).encode())
            return


def carry_out_alone(job: Job, threads: int) -> None:
    """The same for a process that does nothing else: on so many threads, with all that it says in the job's log."""
    torch.set_num_threads(threads)
    allocator.keep_freed_memory()
    with _said_to(job.log):
        say(f"process {os.getpid()} on {platform.node()}, {threads} threads")
        carry_out(job)
        say("failed: " + job.failure.read_text() if job.failure.exists() else "finished")


@contextmanager
def _said_to(log: Path) -> Iterator[None]:
    """Appends what Python and the libraries under it write to standard output and error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        yield
    finally:
        for stream, old in zip((1, 2), before, strict=True):
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(old, stream)
            os.close(old)
