"""The same rounds worked out of measured steps, for trainings that would take too long."""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.lottery.kernels import kernels_of
from bench.lottery.played import ALWAYS
from bench.lottery.training_state import measured
from lth_sparse import models
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.choice_rows import lines
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.proof import copy_of, rewind
from lth_sparse.lottery.pruning import magnitude
from lth_sparse.lottery.task import Task, Way
from lth_sparse.nn import densify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.storage.record import STEP
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system.messages import say
from lth_sparse.system.timing import FEWEST_STEPS, MOST_STEPS

SHORT_TRAINING = 5
"""Steps of a training, where only steps are timed."""
EXTRAPOLATED = (
    f"from {FEWEST_STEPS} to {MOST_STEPS} measured steps of each side a round, timed in turn, on masks pruned by "
    f"magnitude in a lottery of {SHORT_TRAINING} steps a training"
)
"""What the file says of where its seconds come from."""


def extrapolated(settings: Config, dataset: Dataset, device: torch.device) -> list[dict[str, Any]]:
    """The rows of `play`, their seconds worked out of the steps that were measured when auto chose."""
    task = Task(settings, dataset, models.Network(settings.model, dataset.image_shape, len(dataset.classes)), device)
    choices = Choices()
    start, masks = copy_of(task.model), masking.all_alive(task.model)
    rows = []
    with tempfile.TemporaryDirectory() as folder, remembering(choices):
        chooser = Chooser(task, "auto", choices, RunDirectory(Path(folder), say), ALWAYS)
        for round in range(settings.pruning.rounds + 1):
            if round:
                keep = task.density_before(round)
                masks = magnitude(masking.prunable(task.model), masks, keep, settings.pruning, task.kinds)
                rewind(task.model, start, masks)
            rows.append(_row(task, chooser, masks, round))
            _train(task, Way(rows[-1]["trained_by"], rows[-1]["memory_formats"]["auto"]), masks, round)
    return rows


def _row(task: Task, chooser: Chooser, masks: Masks, round: int) -> dict[str, Any]:
    """What is measured of `round`, before the network is trained in it."""
    way, chosen = chooser.choose(masks, round)
    for line in lines(chosen):
        say(line)
    dense = chooser.dense(masks, round)
    milliseconds = next((row.milliseconds for row in chosen if row.operation == STEP), {})
    if not milliseconds:  # Masked dense trains it, and was not timed.
        (alone,) = task.times([dense], masks, round)
        milliseconds = {"dense": alone}
    step_ms, dense_step_ms = milliseconds[way.backend], milliseconds["dense"]
    iterations = task.steps - (task.rewind_iteration if round else 0)
    ways = {"dense": dense, "auto": way}
    seconds = {"dense": iterations * dense_step_ms / 1000, "auto": iterations * step_ms / 1000}
    return {
        "round": round,
        "density": masking.density(masks),
        "live_weights": masking.live(masks),
        "iterations": iterations,
        "step_ms": step_ms,
        "dense_step_ms": dense_step_ms,
        "trained_by": way.backend,
        "memory_formats": {name: each.memory_format for name, each in ways.items()},
        "kernels": kernels_of(chosen, round),
        "sides": {
            name: {"training_seconds": seconds[name]}
            | measured(partial(task.contestant, each, masks, round), masks, task.device)
            for name, each in ways.items()
        },
    }


def _train(task: Task, way: Way, masks: Masks, round: int) -> None:
    """So far that the next round has something to choose by."""
    task.put_in_format(way.memory_format)
    training = task.training(task.copy(masks, way.backend), masks, (round, "ticket"))
    for _ in range(SHORT_TRAINING):
        training.step()
    task.model.load_state_dict(densify(copy.deepcopy(training.model)).state_dict())
