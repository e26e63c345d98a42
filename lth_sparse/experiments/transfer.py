"""`python -m lth_sparse.transfer`: tickets on other data, on other networks, by other optimizers (Morcos et al. 2019).

Each ticket on each data set is a lottery of one round, on as many seeds as are asked for: its dense network, the
ticket, and the controls, a random mask of the same layer densities and the ticket's mask on initial weights drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from lth_sparse import data
from lth_sparse.experiments import replicates
from lth_sparse.lottery.playing import Request, settled
from lth_sparse.models import foreign
from lth_sparse.nn.masks import density
from lth_sparse.report import transfer as report
from lth_sparse.report.words import weights_left
from lth_sparse.settings import file
from lth_sparse.settings.config import TrainingConfig
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.record import table_of
from lth_sparse.storage.summary import Transferred
from lth_sparse.storage.ticket import Ticket, read_ticket
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

ONE_ROUND: Mapping[str, Any] = {
    "rounds": 1, "rewind_iteration": 0, "rewind_epoch": None, "rewind": "weights", "schedule": "geometric",
    "sparsity": None, "criterion": "magnitude", "prune_at": "end", "dynamic": "none", "instability": (),
}  # fmt: skip
"""What makes a run that of a ticket which is there already."""
CONTROLS = ("random", "reinit")
TABLE = "transfer.csv"
RECIPE = (*(each.name for each in fields(TrainingConfig)), "preset", "normalization", "augmentation", "image_size")
"""The settings that a ticket hands on: how it was trained."""


def play_all(
    request: Request, tickets: Sequence[Path], datasets: Sequence[str], seeds: int | None
) -> tuple[Path, list[Transferred]]:
    """Trains each of the `tickets` on each of the `datasets` (none: each on its own), on `seeds` seeds (None:
    as many as there were, or 1). Gives the directory that holds all, and a summary of each.

    `request.given` has the settings of the command line; how a ticket was trained, and its network, stand where they
    say nothing. With `request.resume`, goes on with what is there.
    """
    if request.out is not None and not request.resume and (request.out / TABLE).exists():
        raise InputError(f"--out {request.out} holds {TABLE}; add --resume to go on with it, or name another")
    read = [_read(path) for path in tickets]
    names = _labels(read)
    pairs = [
        (path, ticket, name, dataset)
        for path, ticket, name in zip(tickets, read, names, strict=True)
        for dataset in datasets or ("",)
    ]
    requests = [_request(request, path, ticket, dataset) for path, ticket, _, dataset in pairs]
    targets = [_target(each) for each in requests]  # What is wrong with the last is said before the first is trained.
    found: list[Transferred] = []
    with request.directory("transfer") as out:
        for (_, _, name, _), each, target in zip(pairs, requests, targets, strict=True):
            folder = slug(f"{name} to {target}") if len(pairs) > 1 else ""
            say(f"{name} to {target}")
            headline = partial(report.headline, name, target)
            *_, rows = replicates.play_all(replace(each, out=out / folder, held=True), seeds, headline)
            found.append(Transferred(name, target, folder, rows))
            write_atomically(out / TABLE, table_of([row for each in found for row in _rows(each)]).encode())
            if folder:
                report.write(out, found, request.command)
    return out, found


def _read(path: Path) -> Ticket:
    try:
        return read_ticket(path)
    except OSError as error:
        raise InputError(f"--ticket {path}: {error.strerror}; give the .safetensors file of a ticket") from error


def _labels(tickets: Sequence[Ticket]) -> list[str]:
    """What each is called: its network, its data and what is left of its weights, and a number where two are alike."""
    labels: list[str] = []
    for ticket in tickets:
        network = ticket.network.name if ticket.network else "a network"
        dataset = ticket.metadata.get("dataset")
        on = f" on {dataset}" if isinstance(dataset, str) else ""
        label = plain = f"{network}{on}, {weights_left(density(ticket.masks))} left"
        number = 1
        while label in labels:
            number += 1
            label = f"{plain} ({number})"
        labels.append(label)
    return labels


def request_of(request: Request, path: Path, dataset: str = "") -> Request:
    """That of the ticket at `path` on one data set ("": what the request says, or its own): what the user has not said
    is as the ticket was trained. Raises InputError."""
    return _request(request, path, _read(path), dataset)


def _request(request: Request, path: Path, ticket: Ticket, dataset: str) -> Request:
    said = {**request.file, **request.given}
    given = {**request.given, **ONE_ROUND} | ({"dataset": dataset} if dataset else {})
    defaults: dict[str, Any] = {} if "preset" in said else _recipe(ticket)
    defaults["controls"] = CONTROLS
    if not dataset and "dataset" not in said:
        defaults["dataset"] = _own_dataset(path, ticket)
    if "model" not in said:
        defaults["model"] = _own_model(path, ticket)
    made = replace(request, given=given, defaults=defaults, ticket=path)
    if "sign" in settled(made).pruning.controls:
        raise InputError(
            "--controls sign: it keeps the signs of a lottery's own rewind weights, and these are another's"
        )
    return made


def _own_model(path: Path, ticket: Ticket) -> str:
    if ticket.network is None:
        raise InputError(f"--ticket {path} does not say which network it is of: name one with --model")
    if foreign.is_users(ticket.network.name):
        raise InputError(
            f"--ticket {path} names the network {ticket.network.name}, and a file is not to decide which modules are "
            "imported: if you trust it, name it with --model"
        )
    return ticket.network.name


def _own_dataset(path: Path, ticket: Ticket) -> str:
    """The one that the ticket names. A file does not decide which code runs: it is one of ours."""
    named = ticket.metadata.get("dataset")
    if not isinstance(named, str) or named not in data.names():
        raise InputError(
            f"--ticket {path} is of the data set {named!r}, which is none of ours: name one with --dataset"
        )
    return named


def _recipe(ticket: Ticket) -> dict[str, Any]:
    """How it was trained, {} where that is not known: it is of somebody's own loop, or was changed."""
    found = ticket.metadata.get("config")
    if not isinstance(found, Mapping):
        return {}
    try:
        settings = file.checked(found, lambda name: "")
    except (InputError, TypeError):
        return {}
    return {name: settings[name] for name in RECIPE if name in settings}


def _target(request: Request) -> str:
    settings = settled(request)
    return f"{settings.model} on {settings.data.dataset}"


def _rows(transferred: Transferred) -> list[dict[str, Any]]:
    """Those of `transfer.csv`: of the summary, round 0 as an arm, the dense network."""
    rows = []
    for each in transferred.rows:
        row = asdict(each) | ({"arm": "dense"} if each.round == 0 else {})
        del row["round"]
        rows.append({"source": transferred.source, "target": transferred.target, **row})
    return rows


def sentences(transfers: Sequence[Transferred]) -> list[str]:
    """What came out of each, for the end of a command."""
    return [report.headline(each.source, each.target, each.rows) for each in transfers]
