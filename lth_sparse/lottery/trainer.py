"""What the rounds ask of whoever trains: `run`'s networks and data, or the functions of somebody's own program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.lottery.arms import Arm
from lth_sparse.lottery.position import Position, TrainingState
from lth_sparse.lottery.proof import Weights
from lth_sparse.nn.masks import Masks
from lth_sparse.storage.record import CurvePoint, Record, Round


class Begun(Protocol):
    """A training that has begun: what it trains, in any form, with which masks at the moment, by which optimizer, if
    that is known, and its curve. `live_at_the_end`: how many weights have to live when it is over, by the layers that
    share the number; None where the masks stay."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def masks(self) -> Masks: ...

    @property
    def live_at_the_end(self) -> Mapping[tuple[str, ...], int] | None: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer | None: ...

    @property
    def curve(self) -> Sequence[CurvePoint]: ...

    def state(self) -> TrainingState:
        """What `Trainer.begin` goes on from."""
        ...


class Trainer(Protocol):
    """Trains, evaluates and prunes one network.

    `model`: dense, with the weights of the moment, on its device. `all_alive`: masks of the layers that are pruned, all
    True. `kinds`: layer -> what it is, for the tables.
    `rounds`, `one_shot`: how often it is pruned, and whether always from the dense network. `prunes_at_start`: whether
    the rewind weights are pruned, not trained ones. `seed`: of the controls' masks. `rewinds_to_start`: whether round 0
    begins with the weights that later rounds go back to. `network`: how a ticket names the model, if it can.
    `settings`: what decides the results, JSON-ready.
    """

    model: nn.Module
    all_alive: Masks
    kinds: Mapping[str, str]
    rounds: int
    one_shot: bool
    prunes_at_start: bool
    seed: int
    rewinds_to_start: bool
    network: models.Network | None
    settings: dict[str, Any]

    def session(self) -> AbstractContextManager[None]:
        """Around all of the rounds."""
        ...

    def drawn_anew(self, seed: int) -> Weights:
        """Weights as `model` had them at first, drawn with this seed, on its device."""
        ...

    def arms(self, round: int) -> Sequence[Arm]:
        """What `round` trains, in this order, the ticket first."""
        ...

    def prune(self, candidates: Masks, round: int) -> Masks:
        """The masks of `round`, by the weights of `model`, among the live weights of `candidates`."""
        ...

    def accuracy(self) -> float:
        """The test accuracy of `model`."""
        ...

    def begin(self, arm: Arm, masks: Masks, position: Position, state: TrainingState | None) -> Begun:
        """A training of `model`, whose pruned weights are 0, or the one that `state` is of, which goes on."""
        ...

    def run(self, training: Any, arm: Arm, save: Callable[[], None], rewind_here: Callable[[nn.Module], None]) -> None:
        """Trains to the end. `save` is called wherever it could go on from, and at the end; `rewind_here`, in round 0,
        at the moment whose weights are the rewind weights."""
        ...

    def gradient_at(self, start: Weights, masks: Masks, round: int) -> Mapping[str, Tensor]:
        """The gradient of the loss by each layer's weight, where a training of `masks` starts."""
        ...

    def row(self, training: Any, position: Position, start: Weights) -> dict[str, Any]:
        """The ticket's columns of `rounds.csv` but those that the rounds know: accuracies of arms, and what is live.
        `start`: the weights that it began with, before they were masked."""
        ...

    def compare(self, training: Any, arm: Arm, position: Position) -> None:
        """Adds to the record how far the end of this training, which is that of `arm`, and its twin's lie apart."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What a ticket says beside its round and its rewind."""
        ...

    def is_of(self, settings: Mapping[str, Any]) -> bool:
        """Whether a state that was saved with these settings is of this lottery."""
        ...

    def write(self) -> None:
        """Keeps what a state rests on, before one is written."""
        ...

    def round_done(self, row: Round, record: Record) -> None:
        """Says so."""
        ...
