"""Instability analysis: do two trainings of one network that differ in chance alone end in the same linearly connected
minimum (Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671, sections 2 and 3)?

Two copies are trained from the same weights to the end of the schedule, in different orders of the images, with other
augmentations and other dropout. The error is then evaluated on the line between their ends. The dense network is
copied at steps of its training, each ticket where it starts. A ticket's own training, and the dense network's from
step 0, is the first of its two copies already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.lottery import proof
from lth_sparse.lottery.arms import Arm, Origin
from lth_sparse.lottery.evaluation import Evaluation, evaluate
from lth_sparse.lottery.position import Position, refuse_others
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.task import Task
from lth_sparse.lottery.training import Training
from lth_sparse.nn import masks as masking
from lth_sparse.report.instability import sentence
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.instability import THRESHOLD, Barrier, PathPoint
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say
from lth_sparse.system.seeding import generator

POINTS = 30
"""On a line, both ends among them: as many as the paper has."""
TRAINING_IMAGES = 1000
"""In the sample that the training error is evaluated on."""


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], position: float) -> dict[str, Tensor]:
    """The state dict at `position` from `first`, 0, to `second`, 1, each of which it is exactly there.

    All floating-point numbers are interpolated, BatchNorm's running statistics among them; masks and counters, which
    the two share, are those of `first`.
    """
    return {
        name: torch.lerp(value, second[name], position) if value.is_floating_point() else value
        for name, value in first.items()
    }


def evaluated(model: nn.Module, twin: Weights, splits: Sequence[Split], data: Dataset) -> list[list[Evaluation]]:
    """The points of the line from `twin`, dense weights, to those of `model`: what each makes of each of `splits`.

    `model` computes every one in the form that it has: of sparse layers, the line is one between their `values`. It
    ends with the weights that it had.
    """
    second = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(twin)
    first = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found = []
    for number in range(POINTS):
        model.load_state_dict(between(first, second, number / (POINTS - 1)))
        found.append([evaluate(model, split, data) for split in splits])
    model.load_state_dict(second)
    return found


def barrier(errors: Sequence[float]) -> float:
    """How far the largest of the errors along a line is above the mean of those at its ends."""
    return max(errors) - (errors[0] + errors[-1]) / 2


class Instability:
    """The copies of the dense network and the tickets of `task`, and the lines between their ends.

    `store` keeps the weights of the steps at which the dense network is copied. Nothing is done where the settings
    name no step.
    """

    def __init__(self, task: Task, store: RunDirectory) -> None:
        self._task = task
        self._store = store
        self._steps = sorted(task.config.pruning.instability)

    def copies(self, round: int) -> tuple[Arm, ...]:
        """The trainings of `round` that the analysis adds, each pair in turn."""
        if not self._steps:
            return ()
        if round > 0:
            return (_copy(2, self._task.rewind_iteration, TICKET.name),)
        arms: list[Arm] = []
        for step in self._steps:
            first = TICKET.name
            if step > 0:
                arms.append(_copy(1, step, start=self._weights_of(step)))
                first = arms[-1].name
            arms.append(_copy(2, step, first, start=self._weights_of(step)))
        return tuple(arms)

    def _weights_of(self, step: int) -> Callable[[Origin], Weights]:
        def start(origin: Origin) -> Weights:
            weights = self._store.read_step(step)
            if weights is None:
                raise InputError(
                    f"the weights of step {step}, from which --instability trains two copies, are lost from "
                    f"{self._store.path}; this run cannot go on, start another"
                )
            try:
                refuse_others(weights, self._task.model.state_dict(), f"step-{step}")
            except ValueError as error:
                raise InputError(f"{self._store.path}: {error}; this run cannot go on, start another") from error
            return {name: value.to(self._task.device) for name, value in weights.items()}

        return start

    def keep(self, training: Training, arm: Arm) -> None:
        """Keeps the weights of the dense training where it is copied: to be called before and after each of its
        steps."""
        if training.round == 0 and arm.name == TICKET.name and training.iteration in self._steps:
            self._store.write_step(training.iteration, proof.copy_of(training.model))

    def compare(self, training: Training, arm: Arm, position: Position) -> None:
        """Adds to the record, and says, what the line from `position.twin` to the end of `training` shows."""
        data, step = self._task.data, arm.first_step(self._task.rewind_iteration, position.round)
        found = evaluated(training.model, position.twin, (data.test, _sample(data.train)), data)
        points = [
            PathPoint(
                position.round, step, number / (POINTS - 1), 1 - test.accuracy, 1 - trained.accuracy, trained.loss
            )
            for number, (test, trained) in enumerate(found)
        ]
        errors = [point.test_error for point in points]
        row = Barrier(
            position.round,
            masking.density(position.masks),
            step,
            barrier(errors),
            barrier(errors) < THRESHOLD,
            errors[0],
            errors[-1],
            max(errors),
            barrier([point.train_error for point in points]),
        )
        position.record.paths += points
        position.record.barriers.append(row)
        say(sentence(row))


def _copy(number: int, step: int, twin: str = "", **different: Any) -> Arm:
    return Arm(f"copy-{number}-from-{step}", step=step, order=number, twin=twin, **different)


def _sample(train: Split) -> Split:
    """Of the training images, the same in all rounds and runs: in some data sets they lie class by class."""
    chosen = torch.randperm(len(train), generator=generator(0, "instability"))[:TRAINING_IMAGES]
    chosen = chosen.to(train.labels.device)
    return Split(train.select(chosen), train.labels.index_select(0, chosen))
