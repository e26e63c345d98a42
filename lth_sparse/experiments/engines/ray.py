"""A Ray cluster: each job a task of its own, in a worker of its own, which Ray puts where there is room."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from lth_sparse.experiments.engines.job import Job, variables
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.messages import say

SECONDS_TO_ANSWER = 10.0


class Ray:
    """An `Engine` of tasks with `threads` cores each, and a GPU where `gpu` says so, at most `jobs` of them at once.

    `address`: of the cluster; None for that of RAY_ADDRESS, or else the one that this machine belongs to. Raises
    InputError where there is none, or none with so many cores.
    """

    elsewhere = True

    def __init__(self, address: str | None, jobs: int | None, threads: int, gpu: bool) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError(
                "--on ray needs the package ray, which is not installed: pip install 'lth_sparse[ray]'"
            ) from error
        found = address or os.environ.get("RAY_ADDRESS") or "auto"
        on_signal = signal.getsignal(signal.SIGTERM)
        try:
            _reach(found)
            ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--on ray: no cluster at {found} ({because(error)}); begin one by ray start --head, or give its "
                "--address"
            ) from error
        signal.signal(signal.SIGTERM, on_signal)  # Ray would exit without a word.
        self.jobs, self._ray = jobs, ray
        self._running: dict[Any, Job] = {}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = {"CPU": threads} | ({"GPU": 1} if gpu else {})
        if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
            ray.shutdown()
            asked = f"{threads} cores and a GPU" if gpu else f"{threads} cores"
            raise InputError(f"--on ray: no node of the cluster has {asked}, which a job asks for")
        cores = round(sum(node.get("CPU", 0) for node in nodes))
        say(f"a Ray cluster of {len(nodes)} nodes, {cores} cores")
        alone = ray.remote(num_cpus=threads, num_gpus=int(gpu), max_calls=1, max_retries=0)
        self._task: Any = alone(_task(threads, os.getcwd()))

    def start(self, job: Job) -> None:
        """Hands in a task."""
        self._running[self._task.remote(job)] = job

    def wait(self) -> list[tuple[Job, str]]:
        """Those whose task is over, or whose worker or node is no more."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1)
        return [(self._running.pop(reference), self._how(reference)) for reference in ended]

    def stop(self) -> None:
        """Leaves the cluster, which ends what runs for this program."""
        self._ray.shutdown()

    def _how(self, reference: Any) -> str:
        try:
            self._ray.get(reference)
        except Exception as error:  # Of Ray, or of a node that lacks this package.
            return because(error)
        return ""


def _reach(address: str) -> None:
    """Raises OSError where nobody answers, for which Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()


def _task(threads: int, directory: str) -> Callable[[Job], None]:
    """Ray sends this function by its code, as it has no name of its own: so it can settle the environment before
    PyTorch is imported, which comes with the first of our modules."""
    settled = variables(threads)

    def task(job: Job) -> None:
        import os

        os.environ.update(settled)
        os.chdir(directory)
        from lth_sparse.experiments.engines.job import carry_out_alone

        carry_out_alone(job, threads)

    return task
