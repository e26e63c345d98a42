"""`python -m lth_sparse.run --replicates N`: the same lottery on N seeds, and what they say together.

Each is a whole run in a directory of its own, `seed-0`, `seed-1`, ...; beside them lie `summary.csv`, a report, and
`replicates.json`, what the last of them says in its `config.json`, with the command and the seeds of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from lth_sparse.experiments import statistics
from lth_sparse.lottery.playing import Request, play
from lth_sparse.report import replicates as report
from lth_sparse.settings import config
from lth_sparse.storage.arms import CONTROLS, TICKET, RecordedArm
from lth_sparse.storage.files import write_atomically
from lth_sparse.storage.record import Record, Round, table
from lth_sparse.storage.run_directory import RunDirectory, numbered
from lth_sparse.storage.summary import SummaryRow
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

PREFIX = "seed-"
MOST = 1000


def play_all(
    request: Request, count: int, headline: Callable[[Sequence[SummaryRow]], str] = report.headline
) -> tuple[Path, list[SummaryRow]]:
    """Plays the lottery of `request` on `count` seeds, from its own on. The later ones take over what the first has
    measured and chosen. Gives the directory that holds all, and the rows of its `summary.csv`. `headline`: of its page.

    With `request.resume`, goes on with what is there; more seeds than before are added. Raises InputError, BackendError
    or ProofError with a sentence for the user, and leaves what was finished.
    """
    if not 1 <= count <= MOST:
        raise InputError(f"--replicates {count}: expected a whole number from 1 to {MOST}")
    settings = config.build(request.given, file=request.file)
    out = _directory(request, settings.preset)
    finished: dict[int, Record] = {}
    for seed in range(settings.seed, settings.seed + count):
        place = out / f"{PREFIX}{seed}"
        say(f"seed {seed}, {len(finished) + 1} of {count}")
        store, record = play(
            replace(
                request,
                given={**request.given, "seed": seed},
                out=place,
                resume=RunDirectory(place, say).holds_a_run(),
                choices=request.choices or _choices_of(out, settings.seed, seed),
            )
        )
        finished[seed] = record
        rows = summarized(list(finished.values()))
        info = {**store.read_info(), "command": request.command, "seeds": sorted(finished)}
        write_atomically(out / "replicates.json", (json.dumps(info, indent=2) + "\n").encode())
        write_atomically(out / "summary.csv", table(rows).encode())
        report.write(out, info, rows, headline(rows))
    return out, rows


def _directory(request: Request, preset: str) -> Path:
    """Where all goes. Raises InputError where it holds a run already, of one seed, or of several without --resume."""
    if request.out is None:
        return numbered(Path("runs"), preset.replace("/", "-"))
    if RunDirectory(request.out, say).holds_a_run():
        raise InputError(f"--out {request.out} holds a run of one seed; give --replicates another directory")
    if not request.resume and (there := next(request.out.glob(f"{PREFIX}*"), None)) is not None:
        raise InputError(f"--out {request.out} holds {there.name}; add --resume to go on with it, or name another")
    return request.out


def _choices_of(out: Path, first: int, seed: int) -> Path | None:
    path = RunDirectory(out / f"{PREFIX}{first}", say).choices_path
    return path if seed != first and path.exists() else None


def summarized(records: Sequence[Record]) -> list[SummaryRow]:
    """A row for each arm of each round, over these records of as many seeds."""
    rows: list[SummaryRow] = []
    dense = [TICKET.of(record.rounds[0]) for record in records]
    for of_round in zip(*(record.rounds for record in records), strict=True):
        tickets = _accuracies(TICKET, of_round)
        for arm in (TICKET, *CONTROLS.values()):
            if None in (accuracies := _accuracies(arm, of_round)):
                continue
            rows.append(_row(arm, of_round, accuracies, tickets, dense))
    return rows


def _accuracies(arm: RecordedArm, rounds: Sequence[Round]) -> list[Any]:
    return [arm.of(row) for row in rounds]


def _row(
    arm: RecordedArm, rounds: Sequence[Round], accuracies: list[Any], tickets: list[Any], dense: list[Any]
) -> SummaryRow:
    found = statistics.estimate(accuracies)
    if rounds[0].round == 0:
        difference, verdict = None, ""
    elif arm is TICKET:
        difference = statistics.paired(tickets, dense)
        verdict = statistics.against_dense(difference)
    else:
        difference = statistics.paired(tickets, accuracies)
        verdict = statistics.against_control(difference, arm.words)
    speedups = [row.speedup for row in rounds if row.speedup is not None]
    return SummaryRow(
        round=rounds[0].round,
        arm=arm.name,
        seeds=len(rounds),
        density=sum(row.density for row in rounds) / len(rounds),
        accuracy=found.mean,
        accuracy_half=found.half,
        difference=None if difference is None else difference.mean,
        difference_half=None if difference is None else difference.half,
        verdict=verdict,
        speedup=median(speedups) if arm is TICKET and speedups else None,
    )
