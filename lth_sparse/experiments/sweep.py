"""`python -m lth_sparse.sweep`: many runs, each on several seeds, in one folder, with one table and one page."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lth_sparse.experiments.engines.dispatch import RETRIES, dispatched
from lth_sparse.experiments.engines.interface import Engine
from lth_sparse.experiments.sweep_file import Sweep
from lth_sparse.experiments.swept_run import SweptRun
from lth_sparse.lottery.playing import Request
from lth_sparse.lottery.saving import Saving
from lth_sparse.report import sweep as report
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.record import table_of
from lth_sparse.storage.summary import Swept
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.messages import say

FILE = "sweep.json"
"""What a sweep was asked for."""
LOGS = "job_logs"
"""The directory of what its jobs said. No run has a folder of that name."""


Write = Callable[[Path, Sequence[Swept], int, str], None]
"""Writes the page under a directory, of the runs that are over, of so many, played by this command."""


def play_all(
    request: Request,
    sweep: Sweep,
    engine_of: Callable[[Path], Engine],
    retries: int = RETRIES,
    write: Write = report.write,
) -> tuple[Path, list[Swept]]:
    """Plays every run of `sweep`; one that fails does not keep the others from being played. Gives the directory that
    holds all, and what became of each. `request`: its command, its directory, and whether it goes on.

    `engine_of`: makes, for the directory of what jobs say, that which plays each run on each seed; where a process of
    it is lost, the run is gone on with, up to `retries` times. `write`: called while runs end, as often as `Saving`
    allows, for a page of many takes long, and at the end.
    """
    with request.directory("sweep") as out:
        _refuse_another(request, out, sweep)
        engine = engine_of(out / LOGS)
        try:
            described = json.dumps({"seeds": sweep.seeds, "runs": sweep.runs}, indent=2) + "\n"
            write_atomically(out / FILE, described.encode())
            inside = replace(request, held=True)
            runs = [
                SweptRun(name, replace(inside, given=settings, out=out / slug(name)), sweep.seeds, out / LOGS)
                for name, settings in sweep.runs.items()
            ]
            _play(engine, runs, retries, lambda: _write(request, out, runs, write))
        finally:
            engine.stop()
        return out, _over(runs)


def _play(engine: Engine, runs: Sequence[SweptRun], retries: int, write: Callable[[], None]) -> None:
    run_of = {run.folder: run for run in runs}
    queue = deque(job for run in runs for job in run.jobs())
    saving = Saving(write)
    ends = dispatched(engine, queue, lambda job: run_of[job.run].finished(job), retries)
    for count, (job, failed) in enumerate(ends, start=1):
        run = run_of[job.run]
        run.ended(job, failed)
        if run.swept is not None and run.swept.failed:
            for other in [each for each in queue if each.run == job.run]:
                queue.remove(other)
        # Before those of other runs: one run that is over says more than two that are half over.
        queue.extendleft(reversed(run.jobs()))
        say(f"{job.name} {'failed' if failed else 'finished'}; {count} ended, {len(queue)} wait")
        if queue:
            saving.may()
    saving.must()


def _write(request: Request, out: Path, runs: Sequence[SweptRun], write: Write) -> None:
    done = _over(runs)
    rows_of_all = [{**asdict(row), "run": each.name} for each in done for row in each.rows]
    write_atomically(out / "sweep.csv", table_of(rows_of_all).encode())
    write(out, done, len(runs), request.command)


def _over(runs: Sequence[SweptRun]) -> list[Swept]:
    return [run.swept for run in runs if run.swept is not None]


def _refuse_another(request: Request, out: Path, sweep: Sweep) -> None:
    """Raises InputError where `out` holds another sweep, or one that is not to be gone on with."""
    path = out / FILE
    if path.exists():
        if not request.resume:
            raise InputError(f"--out {out} holds {FILE}; add --resume to go on with it, or name another")
        try:
            before = dict(json.loads(regular_files.read_text(path))["runs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged ({because(error)}); this sweep cannot go on, start another") from error
        now = json.loads(json.dumps(sweep.runs))
        if changed := [name for name in before if before[name] != now.get(name)]:
            raise InputError(
                f"--resume: the settings of {changed[0]!r} were {before[changed[0]]} when the sweep began and are "
                f"{now.get(changed[0])} now; start another, or give new settings a new name"
            )
