"""This machine's cores: each job in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

import torch

from lth_sparse.experiments.engines.job import Job, carry_out_alone, variables

IN_ADVANCE = (carry_out_alone.__module__, "sklearn.datasets")
"""What a job imports before its own work, but for what a network or a data set of the user's own brings."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def context() -> ForkServerContext | SpawnContext:
    """How a process is begun. On Linux as a fork of one that has imported all and done nothing yet: a tiny run
    takes less time than the imports. Anew where libraries may not bear that, as on macOS, and CUDA's."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return get_context("spawn")
    found = get_context("forkserver")
    found.set_forkserver_preload(list(IN_ADVANCE))
    return found


def shared_out(cores: int, wanted: int, jobs: int | None, threads: int | None) -> tuple[int, int]:
    """How many of `wanted` jobs run at once on `cores`, and with how many threads each, so that they do not fight for
    cores. `jobs`, `threads`: where that was given."""
    if jobs is None:
        jobs = max(1, min(wanted, cores // (threads or 1)))
    return jobs, threads or max(1, cores // jobs)


class Local:
    """An `Engine` of `jobs` processes at once, with `threads` each."""

    elsewhere = False

    def __init__(self, jobs: int, threads: int) -> None:
        self.jobs: int | None = jobs
        self._threads, self._context = threads, context()
        self._running: list[tuple[Job, BaseProcess]] = []

    def start(self, job: Job) -> None:
        """Begins a process."""
        process = self._context.Process(target=_target, args=(job, self._threads), name=job.name)
        # For the process that is forked, which looks for modules where this one does.
        with _environment(variables(self._threads) | {"PYTHONPATH": os.pathsep.join(sys.path)}):
            process.start()
        self._running.append((job, process))

    def wait(self) -> list[tuple[Job, str]]:
        """Those whose process is no more."""
        over = wait([process.sentinel for _, process in self._running])
        ended = [(job, process) for job, process in self._running if process.sentinel in over]
        self._running = [pair for pair in self._running if pair not in ended]
        return [(job, _how(process)) for job, process in ended]

    def stop(self) -> None:
        """Kills them: what a run has on disk is whole at any time."""
        for _, process in self._running:
            process.kill()
        for _, process in self._running:
            process.join()


def _target(job: Job, threads: int) -> None:
    try:
        carry_out_alone(job, threads)
    except KeyboardInterrupt:  # Ctrl-C reaches all processes of a terminal; the sweep says it.
        sys.exit(1)


def _how(process: BaseProcess) -> str:
    process.join()
    status = process.exitcode or 0
    if status < 0:
        return f"signal {-status}, {signal.strsignal(-status)}"
    return f"exit status {status}" if status else ""


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
