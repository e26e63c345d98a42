"""`python -m lth_sparse.run --preset coursework`: the comparison that this project began with, a student's of 2023.

Every sparsity from 10 to 50 %, in every split of its 30 epochs into rounds and epochs, by magnitude (LTH) and at
random. The coursework never rewound: it saved its initial weights without a copy, so that putting them back changed
nothing, and its optimizer lived on from round to round; what it reported was chosen on the test images. Here the runs
are lotteries of the preset `seed`, and, if asked for, the same ones with these mistakes emulated.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from lth_sparse import data, models
from lth_sparse.experiments import pace, statistics, sweep
from lth_sparse.experiments.engines.here import Here
from lth_sparse.experiments.pace import Pace
from lth_sparse.experiments.replicates import MOST, PREFIX
from lth_sparse.experiments.sweep_file import Sweep, check_names
from lth_sparse.lottery.playing import Request
from lth_sparse.report import coursework as report
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage.files import write_atomically
from lth_sparse.storage.record import Round, table_of
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.summary import Estimate, Studied, Swept
from lth_sparse.system import checked_json, regular_files
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.messages import clock, say

PRESET = "coursework"
FILE = "coursework.json"
"""What the study was asked for."""
TABLE = "coursework.csv"
SETTLED = (*(field.name for field in fields(PruningConfig)), "epochs")
"""Settings that the study settles itself."""

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5)
SPLITS = ((1, 30), (2, 15), (3, 10), (4, 7), (5, 6))
"""Rounds, and epochs of each training."""
EPOCHS = 30
"""Of a training that is not split."""
CRITERIA = {"LTH": "magnitude", "random": "random"}
MISTAKES: Mapping[str, Any] = {"rewind": "aliased", "backend": "dense"}
PUBLISHED = {
    "LTH": {0.1: 0.7395, 0.2: 0.7359, 0.3: 0.7463, 0.4: 0.7526, 0.5: 0.7183},
    "random": {0.1: 0.734, 0.2: 0.734, 0.3: 0.735, 0.4: 0.721, 0.5: 0.713},
}
"""Test accuracies that the coursework reports; of its network on CIFAR-10, as all of it."""
PUBLISHED_DENSE = 0.703


@dataclass(frozen=True)
class Asked:
    """`settings`: of every run. `iterations`: steps that stand for the 30 epochs, `budget`: seconds to work them out
    of; without either nothing is reduced. `emulate`: whether the mistakes are emulated beside. `seeds`: how many, None
    for as many as there were, or 1."""

    settings: dict[str, Any]
    iterations: int | None = None
    budget: float | None = None
    emulate: bool = False
    seeds: int | None = None


@dataclass(frozen=True)
class Plan:
    """What `coursework.json` says. `asked`: its options by name, to be compared. `reduced`: a sentence."""

    asked: dict[str, Any]
    iterations: int | None
    emulate: bool
    seeds: int
    reduced: str


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    sparsity: float
    rounds: int
    epochs: int
    pruning: str
    emulated: bool

    @property
    def name(self) -> str:
        """Of the run, in tables, and of its folder."""
        emulation = ", emulation" if self.emulated else ""
        return f"{self.pruning}, {self.sparsity:.0%} in {self.rounds} x {self.epochs} epochs{emulation}"

    def steps(self, iterations: int) -> int:
        """Of each training, where so many stand for the 30 epochs."""
        return max(1, round(iterations * self.epochs / EPOCHS))

    def settings(self, common: Mapping[str, Any], iterations: int | None) -> dict[str, Any]:
        """Of the run, over the defaults."""
        length = {"epochs": self.epochs} if iterations is None else {"iterations": self.steps(iterations)}
        own = {"sparsity": self.sparsity, "rounds": self.rounds, "criterion": CRITERIA[self.pruning], "controls": ()}
        mistakes = MISTAKES if self.emulated else {}
        return {"preset": "seed", **common, **own, **length, **mistakes}


def cells(emulate: bool) -> list[Cell]:
    """The runs, in the order in which they are played."""
    every = product(SPARSITIES, SPLITS, (False, True) if emulate else (False,), CRITERIA)
    return [
        Cell(sparsity, rounds, epochs, pruning, emulated) for sparsity, (rounds, epochs), emulated, pruning in every
    ]


def play_all(request: Request, asked: Asked) -> tuple[Path, list[Swept]]:
    """Plays the study, as a sweep; gives the directory that holds all, and what became of each run. `request`: its
    command, its directory, and whether it goes on; what it was asked before may be left out then, emulations and seeds
    may be added.

    Raises InputError for what cannot be used, and for a budget in which nothing can be played.
    """
    before = _begun(request)
    plan = _new(asked) if before is None else _gone_on_with(before, asked, request.out)
    common = {name: value for name, value in plan.asked.items() if name not in ("iterations", "budget")}
    runs = {cell.name: cell.settings(common, plan.iterations) for cell in cells(plan.emulate)}
    if not 1 <= plan.seeds <= MOST:
        raise InputError(f"--replicates {plan.seeds}: expected a whole number from 1 to {MOST}")
    with request.directory(PRESET) as out:
        write_atomically(out / FILE, (json.dumps(asdict(plan), indent=2) + "\n").encode())
        say(plan.reduced)
        inside = replace(request, given={}, out=out, held=True)
        return sweep.play_all(inside, Sweep(runs, plan.seeds), lambda _: Here(), write=_writer(plan))


def _begun(request: Request) -> Plan | None:
    """The plan of the study under `request.out`, None where there is none."""
    if request.out is None:
        return None
    path = request.out / FILE
    if not path.is_file():
        if (request.out / sweep.FILE).exists():
            raise InputError(f"--out {request.out} holds another sweep; name another directory")
        return None
    if not request.resume:
        raise InputError(f"--out {request.out} holds {FILE}; add --resume to go on with it, or name another")
    try:
        return checked_json.row(Plan, json.loads(regular_files.read_text(path)), FILE)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({because(error)}); this study cannot go on, start another") from error


def _options(asked: Asked) -> dict[str, Any]:
    lengths = {"iterations": asked.iterations, "budget": asked.budget}
    told = asked.settings | {name: value for name, value in lengths.items() if value is not None}
    return dict(json.loads(json.dumps(told)))


def _gone_on_with(before: Plan, asked: Asked, out: Path | None) -> Plan:
    for name, value in _options(asked).items():
        if before.asked.get(name) != value:
            raise InputError(
                f"{flag(name)} {value}: the study under --out {out} has {before.asked.get(name)}; --resume goes on "
                "with a study as it is, leave the option out or start another"
            )
    seeds = before.seeds if asked.seeds is None else asked.seeds
    if seeds < before.seeds:
        raise InputError(f"--replicates {seeds}: the study under --out {out} has {before.seeds}, and keeps them")
    return replace(before, emulate=before.emulate or asked.emulate, seeds=seeds)


def _new(asked: Asked) -> Plan:
    if asked.iterations is not None and asked.budget is not None:
        raise InputError("give --iterations or --budget, not both")
    seeds = 1 if asked.seeds is None else asked.seeds
    every = cells(asked.emulate)
    for cell in every:
        check_names(settings := config.build(cell.settings(asked.settings, asked.iterations)))
    # What is wrong with the images is wrong for all runs.
    dataset = data.load(settings.data, settings.seed, models.minimum_size(settings.model))
    plan = Plan(
        _options(asked), asked.iterations, asked.emulate, seeds, "Nothing is reduced: trainings have their epochs."
    )
    if asked.budget is not None:
        iterations, reduced = fitted(pace.measured(settings, dataset), every, seeds, asked.budget)
        return replace(plan, iterations=iterations, reduced=reduced)
    if asked.iterations is not None:
        return replace(plan, reduced=_reduced(asked.iterations, "as --iterations says"))
    return plan


def _reduced(iterations: int, why: str) -> str:
    return (
        f"Reduced: {iterations:,} steps stand for the {EPOCHS} epochs of 1 x {EPOCHS}, and the other trainings are "
        f"shorter in proportion, {why}."
    )


def fitted(found: Pace, every: Sequence[Cell], seeds: int, budget: float) -> tuple[int | None, str]:
    """The steps that stand for the 30 epochs so that `every` run, on `seeds` seeds, fits into `budget` seconds, None
    where the epochs do; and a sentence that says so. Raises InputError where nothing fits."""

    def seconds(iterations: int) -> float:
        return seeds * sum(found.seconds(cell.rounds, cell.steps(iterations)) for cell in every)

    full = EPOCHS * found.per_epoch
    lengths = range(1, full + 1)
    fit = bisect_right(lengths, budget, key=seconds)
    measured = (
        f"a step of masked dense PyTorch takes {1000 * found.step:.3g} ms here, an evaluation of the test images "
        f"{found.test:.2g} s, all of it unreduced {clock(seconds(full))}"
    )
    if fit == 0:
        raise InputError(
            f"--budget {clock(budget)}: {len(every)} lotteries of one step a training take {clock(seconds(1))}, "
            f"evaluations and timed steps ({measured}); give more, or a smaller --model or --dataset"
        )
    if fit == full:
        return None, f"Nothing is reduced: all fits into --budget {clock(budget)} ({measured})."
    iterations = lengths[fit - 1]
    epochs = iterations / found.per_epoch
    return iterations, _reduced(iterations, f"{epochs:.2g} epochs, to fit into --budget {clock(budget)}: {measured}")


def _writer(plan: Plan) -> Callable[[Path, Sequence[Swept], int, str], None]:
    """What writes `coursework.csv` and `report.html` after each run."""
    of = {cell.name: cell for cell in cells(plan.emulate)}
    seeds = range(int(plan.asked.get("seed", 0)), int(plan.asked.get("seed", 0)) + plan.seeds)
    rows: dict[str, Studied] = {}
    subject = ""

    def write(out: Path, done: Sequence[Swept], count: int, command: str) -> None:
        nonlocal subject
        for each in done:
            if each.failed or each.name in rows:
                continue
            stores = [RunDirectory(out / each.folder / f"{PREFIX}{seed}", say) for seed in seeds]
            info = stores[0].read_info()
            subject = f"{info['network']['name']} on {info['dataset']['name']}"
            records = [store.read_record().rounds for store in stores]
            rows[each.name] = _studied(of[each.name], each.folder, records, 1 / int(info["dataset"]["test"]))
        write_atomically(out / TABLE, table_of([_columns(row, plan.seeds) for row in rows.values()]).encode())
        failed = [each for each in done if each.failed]
        report.write(out, list(rows.values()), failed, count, subject, PUBLISHED_DENSE, plan.reduced, command)

    return write


def _studied(cell: Cell, folder: str, rounds: Sequence[Sequence[Round]], image: float) -> Studied:
    """Of a run's rounds, one list a seed."""
    last = [of_seed[-1] for of_seed in rounds]

    def estimate(values: Sequence[float]) -> Estimate:
        return statistics.estimate(values, image)

    return Studied(
        cell.sparsity,
        cell.rounds,
        cell.epochs,
        int(last[0].iterations or 0),
        cell.emulated,
        cell.pruning,
        folder,
        dense=estimate([of_seed[0].accuracy_retrained for of_seed in rounds]),
        before=estimate([row.accuracy_before_prune for row in last]),
        after=estimate([row.accuracy_after_prune for row in last]),
        retrained=estimate([row.accuracy_retrained for row in last]),
        validation=sum(row.accuracy_validation for row in last) / len(last),
        published=PUBLISHED[cell.pruning].get(cell.sparsity),
    )


def _columns(row: Studied, seeds: int) -> dict[str, Any]:
    """The row of `coursework.csv`."""
    accuracies = {
        "accuracy_dense": row.dense,
        "accuracy_before_prune": row.before,
        "accuracy_after_prune": row.after,
        "accuracy_retrained": row.retrained,
    }
    return {
        "sparsity": row.sparsity,
        "rounds": row.rounds,
        "epochs": row.epochs,
        "iterations": row.iterations,
        "way": report.EMULATION if row.emulated else report.CORRECTED,
        "pruning": row.pruning,
        "seeds": seeds,
        **{
            column: value
            for name, found in accuracies.items()
            for column, value in ((name, found.mean), (f"{name}_half", found.half))
        },
        "accuracy_validation": row.validation,
        "published": row.published,
        "published_dense": PUBLISHED_DENSE,
    }
