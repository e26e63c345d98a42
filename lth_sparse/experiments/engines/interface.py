"""What a sweep asks of an engine."""

from __future__ import annotations

from typing import Protocol

from lth_sparse.experiments.engines.job import Job


class Engine(Protocol):
    """Runs jobs, each in a process of its own. It is not asked what became of them: their folders say that.

    `jobs`: how many may run at once, None for as many as there are. `elsewhere`: whether on other machines, which may
    have other files.
    """

    jobs: int | None
    elsewhere: bool

    def start(self, job: Job) -> None:
        """Hands in a job, none of whose name runs."""

    def wait(self) -> list[tuple[Job, str]]:
        """Those that have ended since, at least one; for each how its process was lost, "" where it ended by itself."""

    def stop(self) -> None:
        """Ends those that still run. What they have saved is theirs to go on from."""
