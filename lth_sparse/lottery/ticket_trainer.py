"""The trainer of a ticket that was found elsewhere: round 0 trains the dense network, round 1 the ticket on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lth_sparse.lottery.arms import CONTROLS, TICKETS, Arm, Origin
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.events import Listener
from lth_sparse.lottery.mapping import MappedTicket, mapped
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.task import Task
from lth_sparse.lottery.task_trainer import TaskTrainer
from lth_sparse.nn.masks import Masks, density
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import read_ticket


@dataclass(frozen=True)
class GivenTicket:
    """A ticket on the network of a run, and what `config.json` says of it."""

    mapped: MappedTicket
    described: dict[str, Any]


def given_ticket(path: Path, model: nn.Module) -> GivenTicket:
    """The ticket at `path` on `model`. Raises InputError where it is none, or does not fit."""
    ticket = read_ticket(path)
    fitted = mapped(ticket, model)
    dataset = ticket.metadata.get("dataset")
    return GivenTicket(
        fitted,
        {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "network": ticket.network.name if ticket.network else "",
            "dataset": dataset if isinstance(dataset, str) else "",
            "density": density(ticket.masks),
            "layers": [[each.layer, each.source, each.how] for each in fitted.layers],
        },
    )


class TicketTrainer(TaskTrainer):
    """A `Trainer` of `task` with the ticket that is `given`: it prunes to the ticket's masks, and starts from the
    ticket's weights where they fit, elsewhere from the network's own. Controls start from the network's own."""

    def __init__(
        self,
        task: Task,
        chooser: Chooser,
        store: RunDirectory,
        given: MappedTicket,
        listeners: Sequence[Listener] = (),
        check_finite: bool = False,
    ) -> None:
        super().__init__(task, chooser, store, listeners, check_finite)
        self._given = given

    def arms(self, round: int) -> Sequence[Arm]:
        """The ticket, and the controls that the settings ask for."""
        if round == 0:
            return (TICKETS["weights"],)
        controls = self._task.config.pruning.controls
        return (Arm.of(TICKET, start=self._start), *(CONTROLS[name] for name in controls))

    def _start(self, origin: Origin) -> Weights:
        own = origin.saved
        return own | {name: value.to(own[name]) for name, value in self._given.weights.items()}

    def prune(self, candidates: Masks, round: int) -> Masks:
        """To the masks of the ticket."""
        return {name: self._given.masks[name].to(mask.device) for name, mask in candidates.items()}
