"""How long a lottery takes here, worked out of a few steps and an evaluation that are measured before it begins."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from lth_sparse import data, models
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.evaluation import evaluate
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import length
from lth_sparse.nn.masks import all_alive
from lth_sparse.settings.config import Config
from lth_sparse.system import command_line
from lth_sparse.system.timing import FEWEST_STEPS, MOST_STEPS, PATIENCE_SECONDS, WARM_UP_STEPS

EVALUATIONS_OF_ROUND_0, EVALUATIONS_OF_A_ROUND = 3, 4
"""Of the test images: once trained, rewound, at the early stop, and after pruning; a control has one, once trained."""


@dataclass(frozen=True)
class Pace:
    """`step`: seconds of a training step of masked dense PyTorch; `test`, `validation`: of an evaluation of all these
    images. `per_epoch`: steps of an epoch. `evaluate_every`: steps between evaluations of a training."""

    step: float
    test: float
    validation: float
    per_epoch: int
    evaluate_every: int

    def seconds(self, rounds: int, iterations: int, controls: int = 0) -> float:
        """Of a lottery of so many rounds after round 0, steps a training, and controls beside each ticket: its steps,
        evaluations, and the steps that each round times. No more, for that is as long as without any gain."""
        trainings = 1 + rounds * (1 + controls)
        timed = 2 * self.step * (WARM_UP_STEPS + MOST_STEPS)
        timed = min(timed, max(PATIENCE_SECONDS, 2 * self.step * (WARM_UP_STEPS + FEWEST_STEPS)))
        of_a_training = iterations * self.step + math.ceil(iterations / self.evaluate_every) * self.validation
        evaluations = EVALUATIONS_OF_ROUND_0 + rounds * (EVALUATIONS_OF_A_ROUND + controls)
        return trainings * of_a_training + (1 + rounds) * timed + evaluations * self.test


def measured(settings: Config, dataset: Dataset) -> Pace:
    """Of the dense network of these settings, on their images and their device, where nothing else runs."""
    device = command_line.device(settings.device)
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    task = Task(settings, dataset, network, device)
    contestant = task.contestant(Way("dense", task.memory_format), all_alive(task.model), 0)
    (milliseconds,) = task.times([contestant], FEWEST_STEPS)
    validation = task.data.validation
    began = time.perf_counter()
    evaluate(task.model, validation, task.data)
    seconds = time.perf_counter() - began
    return Pace(
        milliseconds / 1000,
        seconds * len(task.data.test) / len(validation),
        seconds,
        task.batches(0).per_epoch,
        settings.training.evaluate_every,
    )


class Paces:
    """Of many settings, each network on each data set measured once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Pace] = {}

    def seconds(self, settings: Config) -> float:
        """What a lottery of these settings takes here. Raises InputError where its images are not there."""
        training, pruning = settings.training, settings.pruning
        kind = (settings.model, settings.data, training.batch_size, settings.device)
        if kind not in self._known:
            images = data.load(settings.data, settings.seed, models.minimum_size(settings.model))
            self._known[kind] = measured(settings, images)
        pace = replace(self._known[kind], evaluate_every=training.evaluate_every)
        return pace.seconds(pruning.rounds, length(training, pace.per_epoch), len(pruning.controls))
