"""The same rounds worked out of measured steps, for trainings that would take too long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bench.lottery.played import play
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.lottery.training import length
from lth_sparse.settings.config import Config
from lth_sparse.system.timing import FEWEST_STEPS, MOST_STEPS

SHORT_TRAINING = 10
SHORT_EVALUATION = 256
"""Steps of a training, and images of a validation and a test set, where only steps are timed."""
EXTRAPOLATED = (
    f"from {FEWEST_STEPS} to {MOST_STEPS} measured steps of each side a round, timed in turn, on masks pruned by "
    f"magnitude in a lottery of {SHORT_TRAINING} steps a training"
)
"""What the file says of where its seconds come from."""


def extrapolated(settings: Config, dataset: Dataset, device: torch.device) -> list[dict[str, Any]]:
    """The same rows, their seconds worked out of measured steps."""
    few = with_fewer(dataset, SHORT_EVALUATION)
    training = replace(settings.training, epochs=None, iterations=SHORT_TRAINING, evaluate_every=SHORT_TRAINING)
    pruning = replace(settings.pruning, rewind_iteration=0)
    rows = play(replace(settings, training=training, pruning=pruning), few, device, ["auto"])
    total = length(settings.training, Batches(dataset, settings.training.batch_size, "none", 0).per_epoch)
    for row in rows:
        row["iterations"] = total - (settings.pruning.rewind_iteration if row["round"] else 0)
        for side, milliseconds in (("dense", row["dense_step_ms"]), ("auto", row["step_ms"])):
            kept = {name: value for name, value in row["sides"][side].items() if name.endswith("_bytes")}
            row["sides"][side] = {"training_seconds": row["iterations"] * milliseconds / 1000} | kept
    return rows


def with_fewer(dataset: Dataset, images: int) -> Dataset:
    """`dataset` with so many test images, and at most as many to validate on, taken evenly: they may be sorted."""

    def part(split: Split) -> Split:
        step = max(1, len(split) // images)
        return Split(split.images[::step][:images], split.labels[::step][:images])

    return replace(dataset, validation=part(dataset.validation), test=part(dataset.test))
