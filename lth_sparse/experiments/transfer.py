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

from lth_sparse.experiments import replicates
from lth_sparse.lottery.playing import Request
from lth_sparse.nn.masks import density
from lth_sparse.report import transfer as report
from lth_sparse.report.words import weights_left
from lth_sparse.settings import config
from lth_sparse.settings.config import Config, TrainingConfig
from lth_sparse.storage.files import slug, write_atomically
from lth_sparse.storage.record import table
from lth_sparse.storage.run_directory import numbered
from lth_sparse.storage.summary import Transferred, TransferRow
from lth_sparse.storage.ticket import Ticket, read_ticket
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

ONE_ROUND: Mapping[str, Any] = {
    "rounds": 1, "rewind_iteration": 0, "rewind": "weights", "schedule": "geometric", "sparsity": None,
    "criterion": "magnitude", "prune_at": "end",
}  # fmt: skip
"""What makes a run that of a ticket which is there already."""
CONTROLS = ("random", "reinit")
RECIPE = (*(each.name for each in fields(TrainingConfig)), "preset", "normalization", "augmentation", "image_size")
"""The settings that a ticket hands on: how it was trained."""


def play_all(
    request: Request, tickets: Sequence[Path], datasets: Sequence[str], seeds: int
) -> tuple[Path, list[Transferred]]:
    """Trains each of the `tickets` on each of the `datasets` (none: each on its own), on `seeds` seeds. Gives the
    directory that holds all, and a summary of each.

    `request.given` has the settings of the command line; how a ticket was trained, and its network, stand where they
    say nothing. With `request.resume`, goes on with what is there.
    """
    read = [read_ticket(path) for path in tickets]
    names = _labels(read)
    pairs = [
        (path, ticket, name, dataset)
        for path, ticket, name in zip(tickets, read, names, strict=True)
        for dataset in datasets or ("",)
    ]
    requests = [_request(request, path, ticket, dataset) for path, ticket, _, dataset in pairs]
    for each in requests:  # What is wrong with the last of them is said before the first is trained.
        config.build(each.given, file=each.file)
    out = request.out or numbered(Path("runs"), "transfer")
    found: list[Transferred] = []
    for (_, _, name, dataset), each in zip(pairs, requests, strict=True):
        target = _target(each, dataset)
        folder = slug(f"{name} to {target}") if len(pairs) > 1 else ""
        say(f"{name} to {target}")
        headline = partial(report.headline, name, target)
        _, rows = replicates.play_all(replace(each, out=out / folder), seeds, headline)
        found.append(Transferred(name, target, folder, rows))
        write_atomically(out / "transfer.csv", table([row for each in found for row in _rows(each)]).encode())
        if folder:
            report.write(out, found, request.command)
    return out, found


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


def _request(request: Request, path: Path, ticket: Ticket, dataset: str) -> Request:
    recipe = _recipe(ticket)
    given = {"controls": CONTROLS, **request.given, **ONE_ROUND}
    if dataset:
        given["dataset"] = dataset
    elif isinstance(own := ticket.metadata.get("dataset"), str):
        given["dataset"] = own
        given = {"data_dir": recipe.get("data_dir", config.DataConfig().data_dir), **given}
    if "model" not in given:
        if ticket.network is None:
            raise InputError(f"--ticket {path} does not say which network it is of: name one with --model")
        given["model"] = ticket.network.name
    handed_on = {} if "preset" in given else {name: recipe[name] for name in RECIPE if name in recipe}
    return replace(request, given=given, file={**handed_on, **request.file}, ticket=path)


def _recipe(ticket: Ticket) -> dict[str, Any]:
    """The settings of the run that found it, {} where it is of none: of somebody's own loop, or changed since."""
    try:
        settings = Config.from_json(ticket.metadata["config"])
        config.check(settings)
    except (TypeError, KeyError, AttributeError, ValueError):  # InputError is a ValueError.
        return {}
    return config.flat(settings.to_json())


def _target(request: Request, dataset: str) -> str:
    model = request.given["model"]
    return f"{model} on {dataset or request.given.get('dataset', 'its data')}"


def _rows(transferred: Transferred) -> list[TransferRow]:
    return [
        TransferRow(
            source=transferred.source,
            target=transferred.target,
            **{name: value for name, value in asdict(row).items() if name not in ("round", "arm")},
            arm="dense" if row.round == 0 else row.arm,
        )
        for row in transferred.rows
    ]


def sentences(transfers: Sequence[Transferred]) -> list[str]:
    """What came out of each, for the end of a command."""
    return [report.headline(each.source, each.target, each.rows) for each in transfers]
