"""`python -m lth_sparse.sweep`: many runs, each on several seeds, in one folder, with one table and one page."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from lth_sparse.experiments import replicates
from lth_sparse.experiments.sweep_file import Sweep
from lth_sparse.lottery.playing import Request
from lth_sparse.report import sweep as report
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.record import table
from lth_sparse.storage.run_directory import numbered
from lth_sparse.storage.summary import Swept, SweptRow
from lth_sparse.system.errors import BackendError, InputError, ProofError
from lth_sparse.system.messages import say


def play_all(request: Request, sweep: Sweep) -> tuple[Path, list[Swept]]:
    """Plays every run of `sweep`; one that fails does not keep the others from being played. Gives the directory that
    holds all, and what became of each. `request`: its command, its directory, and whether it goes on."""
    out = request.out or numbered(Path("runs"), "sweep")
    done: list[Swept] = []
    for number, (name, settings) in enumerate(sweep.runs.items(), start=1):
        say(f"{name}, {number} of {len(sweep.runs)}")
        folder = slug(name)
        try:
            _, rows = replicates.play_all(replace(request, given=settings, out=out / folder), sweep.seeds)
            done.append(Swept(name, folder, rows, ""))
        except (InputError, BackendError, ProofError) as error:
            say(f"{name} failed: {error}")
            done.append(Swept(name, folder, [], str(error)))
        rows_of_all = [SweptRow(run=each.name, **asdict(row)) for each in done for row in each.rows]
        write_atomically(out / "sweep.csv", table(rows_of_all).encode())
        report.write(out, done, len(sweep.runs), request.command)
    return out, done
