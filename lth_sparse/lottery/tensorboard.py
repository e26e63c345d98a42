"""A listener that writes for TensorBoard, in directories that it shows as runs: one a training, and `rounds`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lth_sparse.lottery.events import EvaluationEvent, Event, Listener, RoundEvent
from lth_sparse.system.errors import InputError

SECONDS_BETWEEN_WRITES = 10
ROUNDS = "rounds"


@contextmanager
def writing(directory: Path) -> Iterator[Listener]:
    """A listener that writes under `directory`, from the first event on; all is written when the context ends.

    `round-NN-ARM/`: train_loss, validation_loss, validation_accuracy and images_per_second by the step of the training.
    `rounds/`: images_per_second and the numbers of `rounds.csv`, by the round. Raises InputError where tensorboard is
    not installed, or `directory` is a file.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs the package tensorboard, which is not installed: pip install tensorboard, or this "
            "package with its extra, '.[tensorboard]'"
        ) from error
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--tensorboard {directory} is a file; give a directory")
    writers: dict[str, Any] = {}

    def write(name: str, values: dict[str, float], step: int) -> None:
        if name not in writers:
            writers[name] = SummaryWriter(str(directory / name), flush_secs=SECONDS_BETWEEN_WRITES)
        for tag, value in values.items():
            writers[name].add_scalar(tag, value, step)

    def listen(event: Event) -> None:
        if isinstance(event, RoundEvent):
            row = asdict(event.row)
            number = row.pop("round")
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            write(ROUNDS, numbers | {"images_per_second": event.images_per_second}, number)
        elif isinstance(event, EvaluationEvent):
            shown = ("train_loss", "validation_loss", "validation_accuracy", "images_per_second")
            values = {name: getattr(event, name) for name in shown}
            write(f"round-{event.round:02}-{event.arm}", values, event.iteration)

    try:
        yield listen
    finally:
        for writer in writers.values():
            writer.close()
