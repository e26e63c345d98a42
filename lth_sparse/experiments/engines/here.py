"""No engine: one job after the other, in this process, with all its threads."""

from __future__ import annotations

from lth_sparse.experiments.engines.job import Job, carry_out


class Here:
    """An `Engine` whose jobs run while they are started."""

    jobs: int | None = 1
    elsewhere = False

    def __init__(self) -> None:
        self._ended: list[tuple[Job, str]] = []

    def start(self, job: Job) -> None:
        """Carries it out."""
        carry_out(job)
        self._ended.append((job, ""))

    def wait(self) -> list[tuple[Job, str]]:
        """The one that was started."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Nothing runs."""
