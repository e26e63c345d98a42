"""The arms of a round: the ticket, and what is trained beside it to tell what the ticket owes to what.

A control changes one thing and shares all the rest with the ticket of its round: how many weights live in each layer,
the batches, the number of steps, the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.pruning import random_like, shuffled, smallest_like
from lth_sparse.nn.masks import Masks, weight_name
from lth_sparse.storage import arms as recorded
from lth_sparse.storage.arms import RecordedArm
from lth_sparse.system.seeding import derive


@dataclass(frozen=True)
class Origin:
    """What an arm of a round is made of.

    `ticket`: the round's masks. `saved`: the rewind weights. `anew(seed)`: weights as the network begins with, drawn
    again. `seed`: of the run. `dense`: the weights of round 0 at the end of its training, `pruned`: those that this
    round has pruned, as they were trained, `began`: the masks that the ticket's training began with, where it changes
    them; each only where an arm of the run needs it.
    """

    ticket: Masks
    saved: Weights
    anew: Callable[[int], Weights]
    seed: int
    round: int
    dense: Weights
    pruned: Weights
    began: Masks

    def derived(self, purpose: str) -> int:
        """A seed of its own for each purpose and round."""
        return derive(self.seed, purpose, self.round)


def _ticket(origin: Origin) -> Masks:
    return origin.ticket


def _inverted(origin: Origin) -> Masks:
    return smallest_like(origin.ticket, {name: origin.dense[weight_name(name)].abs() for name in origin.ticket})


def _began(origin: Origin) -> Masks:
    return origin.began


def _rewound(origin: Origin) -> Weights:
    return origin.saved


def _as_trained(origin: Origin) -> Weights:
    return origin.pruned


def _signs(origin: Origin) -> Weights:
    """Of each rewind weight the sign, times the standard deviation of its layer's."""
    start = dict(origin.saved)
    for name in map(weight_name, origin.ticket):
        start[name] = start[name].sign() * start[name].std(correction=0)
    return start


@dataclass(frozen=True)
class Arm:
    """One of the trainings that a round compares; they differ in what is said here, and in nothing else.

    `name`: in the record and in state files. `column`: of `rounds.csv`, for its accuracy; None where it has none.
    `masks`, `start`: its masks, and the weights that it starts from, before they are masked. `needs`: what of `Origin`
    has to be kept for it. `last_rate`: whether it is trained at the learning rate that the schedule ends with, not by
    the schedule. `changes`: whether its topology changes in training, where the settings say by which rule. `step`: of
    the schedule, where it starts; None: where its round does. `order`: which of the round's orders of images,
    augmentations and dropout it sees; 0 is that of the ticket and its controls. `twin`: the arm trained before it whose
    end its own is compared with, "" where it has none. `keeps_optimizer`: whether it goes on with what the optimizer of
    the round before has kept, which is a mistake, and is here to be shown.
    """

    name: str
    column: str | None = None
    masks: Callable[[Origin], Masks] = _ticket
    start: Callable[[Origin], Weights] = _rewound
    needs: frozenset[str] = frozenset()
    last_rate: bool = False
    changes: bool = False
    step: int | None = None
    order: int = 0
    twin: str = ""
    keeps_optimizer: bool = False

    @classmethod
    def of(cls, recorded: RecordedArm, **different: Any) -> Arm:
        """The arm that the record calls so."""
        return cls(recorded.name, recorded.column, **different)

    def first_step(self, rewind_iteration: int, round: int) -> int:
        """The step of the learning-rate schedule at which it starts, from 0. `rewind_iteration`: that of the run."""
        if self.step is not None:
            return self.step
        return rewind_iteration if round > 0 else 0


DENSE, PRUNED, BEGAN = frozenset({"dense"}), frozenset({"pruned"}), frozenset({"began"})

TICKETS = {
    "weights": Arm.of(recorded.TICKET, changes=True),
    "learning-rate": Arm.of(recorded.TICKET, start=_as_trained, needs=PRUNED, changes=True),
    "none": Arm.of(recorded.TICKET, start=_as_trained, needs=PRUNED, last_rate=True, changes=True),
    # Initial weights that were saved without a copy: put back, they are the trained ones.
    "aliased": Arm.of(recorded.TICKET, start=_as_trained, needs=PRUNED, keeps_optimizer=True),
}
"""What a ticket is trained from, by the values of --rewind (Renda et al. 2020, arXiv:2003.02389, but for the last)."""

CONTROLS = {
    arm.name: arm
    for arm in (
        Arm.of(
            recorded.CONTROLS["random"],
            masks=lambda origin: random_like(origin.ticket, origin.derived("random mask")),
        ),
        # Frankle and Carbin 2019, "random reinitialization".
        Arm.of(
            recorded.CONTROLS["reinit"],
            start=lambda origin: origin.anew(origin.derived("reinit")),
        ),
        # Frankle et al. 2021 (arXiv:2009.08576), "randomly shuffle": masks of the same distribution as random's.
        Arm.of(
            recorded.CONTROLS["shuffle"],
            masks=lambda origin: shuffled(origin.ticket, origin.derived("shuffle")),
        ),
        # Zhou et al. 2019 (arXiv:1905.01067), mask criterion "small final".
        Arm.of(recorded.CONTROLS["invert"], masks=_inverted, needs=DENSE),
        # Zhou et al. 2019, mask-1 action "constant", with the signs of the weights.
        Arm.of(recorded.CONTROLS["sign"], start=_signs),
        # Renda et al. 2020, "fine-tuning".
        Arm.of(recorded.CONTROLS["rewind-none"], start=_as_trained, needs=PRUNED, last_rate=True),
        # Evci et al. 2020, "static".
        Arm.of(recorded.CONTROLS["static"], masks=_began, needs=BEGAN),
    )
}
"""By the values of --controls."""


def arms_of(controls: Sequence[str], rewind: str, round: int) -> tuple[Arm, ...]:
    """What `round` trains, in this order: the ticket first. Round 0 is the dense network alone."""
    if round == 0:
        return (TICKETS["weights"],)
    return (TICKETS[rewind], *(CONTROLS[name] for name in controls))
