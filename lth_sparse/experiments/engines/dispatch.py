"""Jobs to their ends, on any engine: each runs once at a time, and again where its process was lost."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from lth_sparse.experiments.engines.interface import Engine
from lth_sparse.experiments.engines.job import Job
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

RETRIES = 3
SECONDS_TO_APPEAR = 60.0
"""How long files of another machine may take to be seen here: NFS remembers for a minute what was not there."""


def dispatched(
    engine: Engine, queue: deque[Job], finished: Callable[[Job], bool], retries: int = RETRIES
) -> Iterator[tuple[Job, str]]:
    """Runs the jobs of `queue`, in its order, and gives each at its end with why it failed, "" where it did not.
    Others may be added meanwhile. `finished`: whether the folder of a job holds its whole run.

    A job whose process was lost is started again, up to `retries` times, and goes on; one that failed is not. Raises
    InputError where the folder of a job that ended elsewhere does not show here.
    """
    lost: Counter[str] = Counter()
    running = 0
    while queue or running:
        while queue and (engine.jobs is None or running < engine.jobs):
            job = queue.popleft()
            if finished(job):  # By a process of an earlier sweep, which outlived it.
                yield job, ""
                continue
            job.failure.unlink(missing_ok=True)
            engine.start(job)
            running += 1
        for job, how in engine.wait() if running else []:
            running -= 1
            if (failed := _failed(job, finished)) is None and not how and engine.elsewhere:
                failed = _appeared(job, finished)
            if failed is not None:
                yield job, failed
                continue
            lost[job.name] += 1
            how = how or "it ended before its run"
            if lost[job.name] <= retries:
                say(f"{job.name}: its process was lost ({how}); started again, {lost[job.name]} of {retries} times")
                queue.appendleft(job)
            else:
                yield job, f"its process was lost {lost[job.name]} times, at last: {how}"


def _failed(job: Job, finished: Callable[[Job], bool]) -> str | None:
    """What files say: "" where the run is finished, why it failed, None where neither."""
    if job.failure.exists():
        return job.failure.read_text()
    return "" if finished(job) else None


def _appeared(job: Job, finished: Callable[[Job], bool]) -> str:
    """The same, waited for."""
    until = time.monotonic() + SECONDS_TO_APPEAR
    while (failed := _failed(job, finished)) is None:
        if time.monotonic() > until:
            raise InputError(
                f"{job.name} ended, and neither its run nor why it failed is under {job.logs.parent}: give an --out "
                "on a file system that all machines see, by the same path"
            )
        time.sleep(1)
    return failed
