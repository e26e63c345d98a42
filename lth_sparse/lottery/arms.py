"""The arms of a round: the ticket, and what is trained beside it to tell what the ticket owes to its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.pruning import random_like
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import PruningConfig
from lth_sparse.system.seeding import derive


def _rewound(saved: Weights) -> Weights:
    return saved


def _from_the_rewind_step(pruning: PruningConfig, round: int) -> int:
    return pruning.rewind_iteration if round > 0 else 0


@dataclass(frozen=True)
class Arm:
    """One of the trainings that a round compares; they differ in what is said here, and in nothing else.

    `name`: in the record, in state files and in the report. `masks(ticket, seed, round)`: its masks, from the ticket's
    and the seed of the run. `start(saved)`: the weights that it starts from, from the rewind weights.
    `first_step(pruning, round)`: the step of the learning-rate schedule at which it starts, from 0. `accuracy`: the
    column of `rounds.csv` that holds its test accuracy at the end.
    """

    name: str
    masks: Callable[[Masks, int, int], Masks]
    accuracy: str
    start: Callable[[Weights], Weights] = _rewound
    first_step: Callable[[PruningConfig, int], int] = _from_the_rewind_step


TICKET = Arm("ticket", lambda ticket, seed, round: ticket, "accuracy_retrained")

RANDOM = Arm(
    "random",
    # As many live weights in each layer as the ticket has there.
    lambda ticket, seed, round: random_like(ticket, derive(seed, "random mask", round)),
    "accuracy_random",
)

CONTROLS = {"random": RANDOM}
"""By the values of --control."""


def arms_of(pruning: PruningConfig, round: int) -> tuple[Arm, ...]:
    """What `round` trains, in this order: the ticket first. Round 0 is the dense network alone."""
    if round == 0 or pruning.control == "none":
        return (TICKET,)
    return (TICKET, CONTROLS[pruning.control])
