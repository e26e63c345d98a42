"""`python -m lth_sparse.sweep`: many runs, each on several seeds, in one folder, with one table and one page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lth_sparse.experiments import replicates
from lth_sparse.experiments.sweep_file import Sweep
from lth_sparse.lottery.playing import Request
from lth_sparse.report import sweep as report
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.record import table_of
from lth_sparse.storage.summary import Swept
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError, because, reason
from lth_sparse.system.messages import say

FILE = "sweep.json"
"""What a sweep was asked for."""


Write = Callable[[Path, Sequence[Swept], int, str], None]
"""Writes the page under a directory, of the runs that are over, of so many, played by this command."""


def play_all(request: Request, sweep: Sweep, write: Write = report.write) -> tuple[Path, list[Swept]]:
    """Plays every run of `sweep`; one that fails does not keep the others from being played. Gives the directory that
    holds all, and what became of each. `request`: its command, its directory, and whether it goes on. `write`: called
    after each run."""
    with request.directory("sweep") as out:
        _write_down(request, out, sweep)
        return out, _play_all(replace(request, held=True), out, sweep, write)


def _play_all(request: Request, out: Path, sweep: Sweep, write: Write) -> list[Swept]:
    done: list[Swept] = []
    for number, (name, settings) in enumerate(sweep.runs.items(), start=1):
        say(f"{name}, {number} of {len(sweep.runs)}")
        folder = slug(name)
        try:
            *_, rows = replicates.play_all(replace(request, given=settings, out=out / folder), sweep.seeds)
            done.append(Swept(name, folder, rows, ""))
        except Exception as error:  # Whatever it is, the others are worth playing.
            why = reason(error)
            say(f"{name} failed: {why}")
            done.append(Swept(name, folder, [], why))
        rows_of_all = [{**asdict(row), "run": each.name} for each in done for row in each.rows]
        write_atomically(out / "sweep.csv", table_of(rows_of_all).encode())
        write(out, done, len(sweep.runs), request.command)
    return done


def _write_down(request: Request, out: Path, sweep: Sweep) -> None:
    """What the sweep is, under `out`. Raises InputError where that holds another, or one that is not to be gone on
    with."""
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
    write_atomically(path, (json.dumps({"seeds": sweep.seeds, "runs": sweep.runs}, indent=2) + "\n").encode())
