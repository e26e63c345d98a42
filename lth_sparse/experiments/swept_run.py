"""One run of a sweep: the jobs that play it, a seed each, and what became of it."""

from __future__ import annotations

from pathlib import Path

from lth_sparse.experiments.engines.job import Job
from lth_sparse.experiments.replicates import Replicates
from lth_sparse.lottery.playing import Request
from lth_sparse.storage.record import Record
from lth_sparse.storage.summary import Swept
from lth_sparse.system.errors import InputError, reason
from lth_sparse.system.messages import say


class SweptRun:
    """The run `name`, which `request` asks for, on so many seeds; `logs` is the directory of what its jobs say.

    `folder`: the name of its directory. `swept`: what became of it, None until it is over.
    """

    def __init__(self, name: str, request: Request, seeds: int, logs: Path) -> None:
        assert request.out is not None
        self.folder = request.out.name
        self.swept: Swept | None = None
        self._name, self._logs = name, logs
        self._replicates: Replicates | None = None
        self._finished: dict[int, Record] = {}
        self._given: set[int] = set()
        try:
            self._replicates = Replicates(request, seeds)
            self._replicates.begin()
            for seed in self._replicates.seeds:
                if (record := self._replicates.finished(seed)) is not None:
                    self._finished[seed] = record
            # A page takes longer than a tiny run.
            self._put_together(write=not self._replicates.written())
        except Exception as error:  # Whatever it is, the others are worth playing.
            self._fail(reason(error))

    def jobs(self) -> list[Job]:
        """Those that may run and were not given before. The first seed comes before the others, which take over what is
        measured and chosen on it."""
        if self.swept is not None or self._replicates is None:
            return []
        first, *others = self._replicates.seeds
        ready = {first, *others} if first in self._finished else {first}
        seeds = sorted(ready - self._finished.keys() - self._given)
        self._given.update(seeds)
        return [Job(self.folder, seed, self._replicates.asked(seed), self._logs) for seed in seeds]

    def finished(self, job: Job) -> bool:
        """Whether the directory of a job holds its whole run. A damaged one is the job's to tell."""
        try:
            return self._replicates is not None and self._replicates.finished(job.seed) is not None
        except InputError:
            return False

    def ended(self, job: Job, failed: str) -> None:
        """Takes in what `job` came to: its run, or why it failed."""
        if self.swept is not None or self._replicates is None:
            return
        if failed:
            self._fail(failed)
            return
        try:
            record = self._replicates.finished(job.seed)
            assert record is not None
            self._finished[job.seed] = record
            self._put_together()
        except Exception as error:
            self._fail(reason(error))

    def _put_together(self, write: bool = True) -> None:
        assert self._replicates is not None
        if self._finished:
            _, rows, _ = self._replicates.put_together(self._finished, write=write)
            if len(self._finished) == len(self._replicates.seeds):
                self.swept = Swept(self._name, self.folder, rows, "")

    def _fail(self, why: str) -> None:
        say(f"{self._name} failed: {why}")
        self.swept = Swept(self._name, self.folder, [], why)
        if self._replicates is not None:
            self._replicates.withdraw()
