"""How long runs would take here, before they are played: steps, times what one takes."""

from __future__ import annotations

import argparse
import re
from typing import Any

from lth_sparse import data, models
from lth_sparse.lottery.task import Task, Way
from lth_sparse.nn import masks as masking
from lth_sparse.settings.config import Config
from lth_sparse.system import command_line

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
BESIDE_STEPS = 1.2
"""What a run takes, over what its steps take: evaluations, choosing, reports."""


def seconds(text: str) -> float:
    """From "90s", "20min" or "3h". Raises argparse.ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 20min or 3h, given {text}")
    return float(found[1]) * SECONDS[found[2]]


class Steps:
    """What a step of dense training takes here, each kind of them measured once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[float, int]] = {}

    def of(self, settings: Config) -> float:
        """Seconds that a run of these settings takes at most: as long as a dense one, as if no weight were pruned.
        Raises InputError where its data are not there."""
        kind = (settings.model, settings.data, settings.training.batch_size, settings.device)
        if kind not in self._known:
            self._known[kind] = self._measured(settings)
        step, per_epoch = self._known[kind]
        training = settings.training
        steps = training.iterations or (training.epochs or 0) * per_epoch
        trainings = 1 + settings.pruning.rounds * (1 + len(settings.pruning.controls))
        return step * steps * trainings * BESIDE_STEPS

    def _measured(self, settings: Config) -> tuple[float, int]:
        """Seconds of a step, and the steps of an epoch."""
        dataset = data.load(settings.data, settings.seed, models.minimum_size(settings.model))
        network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
        task = Task(settings, dataset, network, command_line.device(settings.device))
        contestant = task.contestant(Way("dense", task.memory_format), masking.all_alive(task.model), 0)
        return task.times([contestant])[0] / 1000, task.batches(0).per_epoch
