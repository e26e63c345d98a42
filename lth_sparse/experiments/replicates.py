"""`python -m lth_sparse.run --replicates N`: the same lottery on N seeds, and what they say together.

Each is a whole run in a directory of its own, `seed-0`, `seed-1`, ...; beside them lie `summary.csv`, a report, and
`replicates.json`, what the last of them says in its `config.json`, with the command and the seeds of all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from lth_sparse.experiments import statistics
from lth_sparse.lottery.description import functions_in, settings_of
from lth_sparse.lottery.playing import Request, play, settled
from lth_sparse.report import replicates as report
from lth_sparse.report.instability import headline_of_seeds
from lth_sparse.settings import config
from lth_sparse.storage.arms import CONTROLS, TICKET, RecordedArm
from lth_sparse.storage.files import write_atomically
from lth_sparse.storage.record import Record, Round, table
from lth_sparse.storage.run_directory import OF_SEVERAL, RunDirectory, numbered
from lth_sparse.storage.summary import StabilityRow, SummaryRow, TrainingTime
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.messages import say

PREFIX = "seed-"
MOST = 1000


class Replicates:
    """The lottery of a request on several seeds, from its own on, each in a directory of its own under `out`.

    `seeds`: which. With `request.resume` it is what is there, by its settings, and more seeds where `count` says so
    (None: as many as there were, or 1). Raises InputError where that cannot be.
    """

    def __init__(self, request: Request, count: int | None) -> None:
        self._before = plan = _begun(request)
        if plan is None:
            settings = settled(request)
            plan = {"command": request.command, "config": settings.to_json(), "seeds": [], "replicates": 1}
        else:
            # The data set is named as it was asked for; each run has its own.
            settings = settings_of({**plan, "dataset": {"name": plan["config"]["data"]["dataset"]}},
                                   {**request.file, **request.given})  # fmt: skip
        count = plan["replicates"] if count is None else count
        if not plan["replicates"] <= count <= MOST:
            least = plan["replicates"]
            raise InputError(f"--replicates {count}: expected a whole number from {least} to {MOST}" + (
                f", for there are {least} under {request.out}" if least > 1 else ""
            ))  # fmt: skip
        self.out = request.out or numbered(Path("runs"), settings.preset.replace("/", "-"))
        self.seeds = range(settings.seed, settings.seed + count)
        self._request, self._settings, self._plan = request, settings, plan | {"replicates": count}
        self._new = False

    def begin(self) -> None:
        """Writes down what is to be played; the directory is held by this process. Raises InputError where another has
        written there since it was looked at."""
        if _begun(self._request) != self._before:
            raise InputError(f"--out {self.out}: another process has written there meanwhile; see --resume")
        self._new = not (self.out / OF_SEVERAL).exists()
        _write(self.out, self._plan)

    def asked(self, seed: int) -> Request:
        """What `play_seed` plays on `seed`: with what was measured and chosen on the first one, where that is known."""
        whole = {**config.flat(self._settings.to_json()), "seed": seed}
        choices = self._request.choices or _choices_of(self.out, self.seeds[0], seed)
        return replace(
            self._request, given={}, file=whole, defaults={}, out=self._place(seed), resume=False, choices=choices
        )

    def finished(self, seed: int) -> Record | None:
        """The record of the run on `seed`, None where something is left to play of it. Raises InputError where it is
        damaged."""
        store = RunDirectory(self._place(seed), say)
        return store.finished(self._settings.pruning.rounds) if store.holds_a_run() else None

    def put_together(
        self,
        finished: Mapping[int, Record],
        headline: Callable[[Sequence[SummaryRow]], str] = report.headline,
        *,
        write: bool = True,
    ) -> tuple[dict[str, Any], list[SummaryRow], list[StabilityRow]]:
        """What the records of these seeds, at least one, say together, as `replicates.json`, `summary.csv` and
        `instability-summary.csv` hold it; written there, with a page, where `write` says so. `headline`: of the page.
        """
        seeds = sorted(finished)
        records = [finished[seed] for seed in seeds]
        described = RunDirectory(self._place(seeds[-1]), say).read_info()
        info = {**described, **self._plan, "config": self._settings.to_json(), "command": self._request.command}
        info |= {"seeds": seeds, "replicates": len(self.seeds), "training": asdict(trained(records))}
        images = int(info["dataset"]["test"])
        rows, pairs = summarized(records, images), stabilities(records, images)
        if write:
            write_atomically(self.out / "summary.csv", table(rows).encode())
            if pairs:
                write_atomically(self.out / "instability-summary.csv", table(pairs).encode())
            report.write(self.out, info, rows, headline(rows), pairs)
            _write(self.out, info)
        return info, rows, pairs

    def written(self) -> bool:
        """Whether what all seeds say together was written before: `replicates.json` names them last."""
        return list(self._plan["seeds"]) == list(self.seeds)

    def withdraw(self) -> None:
        """Leaves nothing behind where no run has begun."""
        if self._new and not any(self._place(seed).exists() for seed in self.seeds):
            (self.out / OF_SEVERAL).unlink()
            if not any(self.out.iterdir()):
                self.out.rmdir()

    def _place(self, seed: int) -> Path:
        return self.out / f"{PREFIX}{seed}"


def play_all(
    request: Request, count: int | None, headline: Callable[[Sequence[SummaryRow]], str] = report.headline
) -> tuple[Path, dict[str, Any], list[SummaryRow]]:
    """Plays `Replicates` one after the other. The later ones take over what the first has measured and chosen. Gives
    the directory that holds all, and the contents of its `replicates.json` and its `summary.csv`. `headline`: of its
    page.

    Raises InputError, BackendError or ProofError with a sentence for the user, and leaves what was finished.
    """
    replicates = Replicates(request, count)
    with replace(request, out=replicates.out).directory("") as out:
        replicates.begin()
        return out, *_play_all(replicates, headline)


def _play_all(
    replicates: Replicates, headline: Callable[[Sequence[SummaryRow]], str]
) -> tuple[dict[str, Any], list[SummaryRow]]:
    finished: dict[int, Record] = {}
    for seed in replicates.seeds:
        say(f"seed {seed}, {len(finished) + 1} of {len(replicates.seeds)}")
        try:
            finished[seed] = play_seed(replicates.asked(seed))
        except BaseException:
            replicates.withdraw()
            raise
        info, rows, pairs = replicates.put_together(finished, headline)
    if pairs:
        say(headline_of_seeds(pairs))
    return info, rows


def play_seed(asked: Request) -> Record:
    """Plays what `Replicates.asked` gave, from its beginning or from where it was left; gives its record."""
    assert asked.out is not None
    if RunDirectory(asked.out, say).holds_a_run():
        asked = replace(asked, file=functions_in(config.build({}, file=asked.file)), resume=True)
    return play(asked)[1]


def _write(out: Path, info: dict[str, Any]) -> None:
    write_atomically(out / OF_SEVERAL, (json.dumps(info, indent=2) + "\n").encode())


def _begun(request: Request) -> dict[str, Any] | None:
    """What `replicates.json` says of the runs that are to be gone on with, None where there are none. Raises InputError
    where the directory holds a run already, of one seed, or of several without --resume."""
    if request.out is None:
        return None
    if RunDirectory(request.out, say).holds_a_run():
        raise InputError(f"--out {request.out} holds a run of one seed; give another directory")
    path = request.out / OF_SEVERAL
    if not path.is_file():
        if (there := next(request.out.glob(f"{PREFIX}*"), None)) is not None:
            raise InputError(f"--out {request.out} holds {there.name} and no {OF_SEVERAL}; name another")
        return None
    if not request.resume:
        raise InputError(f"--out {request.out} holds {OF_SEVERAL}; add --resume to go on with it, or name another")
    try:
        found = json.loads(regular_files.read_text(path))
        if type(found["replicates"]) is not int or found["replicates"] < 1:
            raise ValueError(f"replicates is {found['replicates']!r}")
        found["config"]["data"]["dataset"].strip()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({because(error)}); these runs cannot go on, start others") from error
    return dict(found)


def _choices_of(out: Path, first: int, seed: int) -> Path | None:
    path = RunDirectory(out / f"{PREFIX}{first}", say).choices_path
    return path if seed != first and path.exists() else None


def summarized(records: Sequence[Record], images: int) -> list[SummaryRow]:
    """A row for each arm of each round, over these records of as many seeds, whose test set has so many images."""
    rows: list[SummaryRow] = []
    dense = [TICKET.of(record.rounds[0]) for record in records]
    for of_round in zip(*(record.rounds for record in records), strict=True):
        tickets = _accuracies(TICKET, of_round)
        for arm in (TICKET, *CONTROLS.values()):
            if None in (accuracies := _accuracies(arm, of_round)):
                continue
            rows.append(_row(arm, of_round, accuracies, tickets, dense, 1 / images))
    return rows


def trained(records: Sequence[Record]) -> TrainingTime:
    """What all trainings of these records took, and would have taken by masked dense PyTorch's steps. A control takes
    its ticket's time, for it has as many weights in each layer; its own is not recorded."""
    rounds = [row for record in records for row in record.rounds]
    counts = [sum(arm.of(row) is not None for arm in (TICKET, *CONTROLS.values())) for row in rounds]
    seconds = [count * row.seconds for count, row in zip(counts, rounds, strict=True)]
    dense = [took * (row.speedup or math.nan) for took, row in zip(seconds, rounds, strict=True)]
    changing = [row for row in rounds if row.repacking_seconds is not None]
    return TrainingTime(
        sum(counts),
        sum(seconds),
        sum(dense),
        sum(row.seconds for row in changing),
        sum(row.repacking_seconds or 0.0 for row in changing),
        sum(row.dense_gradient_seconds or 0.0 for row in changing),
    )


def stabilities(records: Sequence[Record], images: int) -> list[StabilityRow]:
    """A row for each pair of copies, over these records of as many seeds, whose test set has so many images."""
    rows: list[StabilityRow] = []
    for pair in zip(*(record.barriers for record in records), strict=True):
        found = statistics.estimate([row.barrier for row in pair], 1 / images)
        density = sum(row.density for row in pair) / len(pair)
        verdict = statistics.stability(found)
        rows.append(StabilityRow(pair[0].round, pair[0].step, len(pair), density, found.mean, found.half, verdict))
    return rows


def _accuracies(arm: RecordedArm, rounds: Sequence[Round]) -> list[Any]:
    return [arm.of(row) for row in rounds]


def _row(
    arm: RecordedArm,
    rounds: Sequence[Round],
    accuracies: list[Any],
    tickets: list[Any],
    dense: list[Any],
    image: float,
) -> SummaryRow:
    found = statistics.estimate(accuracies, image)
    if rounds[0].round == 0:
        difference, verdict = None, ""
    elif arm is TICKET:
        difference = statistics.paired(tickets, dense, image)
        verdict = statistics.against_dense(difference)
    else:
        difference = statistics.paired(tickets, accuracies, image)
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
