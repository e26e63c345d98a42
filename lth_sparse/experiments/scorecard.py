"""`python -m lth_sparse.reproduce`: published claims, played at a size that fits, and judged.

Each run of a claim is one with replicates, in a folder of its own; a claim's figures are differences within a seed,
with their interval, and its verdict says what that interval allows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lth_sparse.experiments import replicates, statistics, transfer
from lth_sparse.experiments.claims import STEPS, Claim, Size, Statement
from lth_sparse.experiments.pace import Paces
from lth_sparse.lottery.playing import Request, play
from lth_sparse.report import scorecard as report
from lth_sparse.report.words import duration
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.instability import Barrier
from lth_sparse.storage.record import Round, table
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.summary import DOES_NOT, HOLDS, NOT_COMPARABLE, TOO_FEW, Claimed, Estimate, Judged
from lth_sparse.system import regular_files
from lth_sparse.system.errors import InputError, because, reason
from lth_sparse.system.home import from_home
from lth_sparse.system.messages import say
from lth_sparse.system.suggest import nearest

FILE = "scorecard.json"
"""Which claims, at which sizes."""
TABLE = "scorecard.csv"


@dataclass(frozen=True)
class Asked:
    """`claims`: what is tested. `settings`: the user's, over those of every run. `budget`: seconds for all of them
    together, None for no limit. `size`: the name of the size, "" for the largest that fits the budget. `seeds`: None
    for as many as the size says. `cifar10`: a folder of images, in the place of the published files."""

    claims: Sequence[Claim]
    settings: Mapping[str, Any]
    budget: float | None = None
    size: str = ""
    seeds: int | None = None
    cifar10: Path | None = None


def play_all(request: Request, asked: Asked) -> tuple[Path, list[Claimed]]:
    """Tests every claim; one that fails does not keep the others from being tested. Gives the directory that holds all,
    and what became of each. `request`: its command, its directory, and whether it goes on."""
    with request.directory("scorecard") as out:
        return out, _play_all(replace(request, held=True), out, asked)


def _play_all(request: Request, out: Path, asked: Asked) -> list[Claimed]:
    sizes = _sizes(request, out)
    for claim in asked.claims:
        _named(claim, asked.size)
    done: list[Claimed] = []
    paces = Paces()
    for claim in asked.claims:
        say(f"{claim.name}: {claim.source}")
        try:
            size = _size(claim, asked, sizes.get(claim.name, ""), paces)
            sizes[claim.name] = size.name
            write_atomically(out / FILE, (json.dumps(sizes, indent=2) + "\n").encode())
            done.append(_tested(request, out / claim.name, claim, size, asked))
        except Exception as error:  # Whatever it is, the others are worth testing.
            why = reason(error)
            say(f"{claim.name} failed: {why}")
            done.append(Claimed(claim.name, claim.source, "", "", 0.0, [], why))
        write_atomically(out / TABLE, table([each for claimed in done for each in claimed.judged]).encode())
        report.write(out, done, len(asked.claims), request.command)
    return done


def _sizes(request: Request, out: Path) -> dict[str, str]:
    """The sizes of the claims under `out` that have begun. Raises InputError."""
    path = out / FILE
    if not path.exists():
        return {}
    if not request.resume:
        raise InputError(f"--out {out} holds {FILE}; add --resume to go on with it, or name another")
    try:
        return {str(claim): str(size) for claim, size in json.loads(regular_files.read_text(path)).items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({because(error)}); start another") from error


def _tested(request: Request, out: Path, claim: Claim, size: Size, asked: Asked) -> Claimed:
    instead = _instead(claim, size)
    say(f"{claim.name}: size {size.name}" + (f", {instead}" if instead else ""))
    began = time.monotonic()
    first = asked.settings.get("seed", 0)
    seeds = range(first, first + (size.seeds if asked.seeds is None else asked.seeds))
    played = _Folders(out, seeds)
    for name, settings in _runs(claim, size, asked).items():
        say(f"{claim.name}: {name}, by the preset {settings['preset']}")
        asks = replace(request, given=settings, out=out / slug(name), resume=True)
        replicates.play_all(asks, len(seeds))
    for name, each in claim.transfers.items():
        for seed, rounds in zip(seeds, played.rounds(each.run), strict=True):
            say(f"{claim.name}: {name}, seed {seed}")
            chosen = min(rounds[1:], key=lambda row: abs(row.density - each.density))
            ticket = played.store(each.run, seed).ticket_path(chosen.round)
            asks = replace(request, given={**asked.settings, **each.settings, "seed": seed})
            store = played.store(name, seed)
            made = transfer.request_of(asks, ticket)
            play(replace(made, out=store.path, resume=store.holds_a_run()))
    judged = [_judged(claim.name, size, each, played, full=size is claim.sizes[0]) for each in claim.statements]
    return Claimed(claim.name, claim.source, size.name, instead, time.monotonic() - began, judged, "")


def _size(claim: Claim, asked: Asked, begun: str, paces: Paces) -> Size:
    """The one that has begun, or is asked for, or the largest that fits. Raises InputError where none does."""
    if begun or asked.budget is None:
        return _named(claim, begun or asked.size)
    share, why = asked.budget / len(asked.claims), ""
    for size in claim.sizes:
        try:
            takes = _seconds(claim, size, asked, paces)
        except InputError as error:  # Its images are not here; a smaller size may have others.
            why = str(error)
        else:
            if takes <= share:
                say(f"{claim.name}: size {size.name} takes about {duration(takes)} here")
                return size
            why = f"its size {size.name} takes about {duration(takes)} here"
        say(f"{claim.name}: not at size {size.name}: {why}")
    raise InputError(
        f"--budget {duration(share)} a claim is too little for {claim.name}: {why}; give it more, or choose --size"
    )


def _named(claim: Claim, name: str) -> Size:
    """The size of that name, "" for the published one. Raises InputError."""
    by_name = {size.name: size for size in claim.sizes}
    if name and name not in by_name:
        raise InputError(f"--size {name}: {claim.name} has {', '.join(by_name)}{nearest(name, by_name)}")
    return by_name[name] if name else claim.sizes[0]


def _seconds(claim: Claim, size: Size, asked: Asked, paces: Paces) -> float:
    seeds = size.seeds if asked.seeds is None else asked.seeds
    runs = _runs(claim, size, asked)
    one_seed = sum(paces.seconds(config.build(settings)) for settings in runs.values())
    for each in claim.transfers.values():
        alone = {"rounds": 1, "sparsity": None, "controls": transfer.CONTROLS}
        one_seed += paces.seconds(config.build({**runs[each.run], **alone}))
    return one_seed * seeds


def _runs(claim: Claim, size: Size, asked: Asked) -> dict[str, dict[str, Any]]:
    """Their settings, as the command line would give them."""
    runs = {}
    for name, published in claim.runs.items():
        settings: dict[str, Any] = dict(published)
        for smaller in (size.settings, size.runs.get(name, {})):
            if "iterations" in smaller:
                settings.pop("epochs", None)
            settings |= smaller
        if asked.cifar10 is not None and config.build(settings).data.dataset == "cifar10":
            settings |= {"dataset": "folder", "data_dir": from_home(str(asked.cifar10))}
        runs[name] = {**settings, **asked.settings}
    return runs


def _instead(claim: Claim, size: Size) -> str:
    """What makes the size smaller than the published one, in words."""
    if size is claim.sizes[0]:
        return ""
    given = [f"{flag(name)} {value:g}" if isinstance(value, float) else f"{flag(name)} {value}"
             for name, value in size.settings.items()]  # fmt: skip
    return f"{', '.join(given)}, {size.seeds} seeds"


class _Folders:
    """The runs of a claim as they lie under `out`, each on `seeds`."""

    def __init__(self, out: Path, seeds: Sequence[int]) -> None:
        self._out, self._seeds = out, seeds

    def store(self, run: str, seed: int) -> RunDirectory:
        return RunDirectory(self._out / slug(run) / f"{replicates.PREFIX}{seed}", say)

    def rounds(self, run: str) -> list[list[Round]]:
        return [self.store(run, seed).read_record().rounds for seed in self._seeds]

    def barriers(self, run: str) -> list[list[Barrier]]:
        return [self.store(run, seed).read_record().barriers for seed in self._seeds]

    def image(self, run: str) -> float:
        """What one test image counts."""
        return 1 / int(self.store(run, self._seeds[0]).read_info()["dataset"]["test"])


def _judged(claim: str, size: Size, statement: Statement, played: _Folders, *, full: bool) -> Judged:
    values, density = statement.of.of(played)
    image = 0.0 if statement.unit == STEPS else played.image(statement.of.run)
    if statement.less is None:
        found = statistics.estimate(values, image)
    else:
        found = statistics.paired(values, statement.less.of(played)[0], image)
    return Judged(
        claim=claim,
        statement=statement.says,
        published=statement.published,
        size=size.name,
        seeds=len(values),
        density=density,
        unit=statement.unit,
        ours=found.mean,
        ours_half=found.half,
        verdict=NOT_COMPARABLE if statement.at_full_size and not full else verdict(statement, found),
    )


def verdict(statement: Statement, found: Estimate) -> str:
    """What the interval of a figure says of the statement that it is about."""
    if found.seeds < statistics.LEAST:
        return TOO_FEW
    if statement.above is not None:
        holds, fails = found.low > statement.above, found.high <= statement.above
    else:
        holds, fails = found.high < statement.below, found.low >= statement.below
    return HOLDS if holds else DOES_NOT if fails else TOO_FEW
