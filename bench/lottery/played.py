"""Both lotteries, every round played for real, a round of each in turn: seconds, accuracies, bytes and kernels."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.lottery.kernels import kernels_of
from bench.lottery.training_state import measured
from bench.lottery.turns import Turns
from lth_sparse import models
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.rounds import Callbacks, Rounds
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.task_trainer import TaskTrainer
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.storage.record import STEP, Record
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import load_ticket, read_ticket
from lth_sparse.system.messages import say

SIDES = ("dense", "auto")
ALWAYS = 0
"""Steps of a training from which on its memory format is measured: of any, however short it was made here."""


class Side:
    """One of the two lotteries, and the seconds of its rounds. `backend`: "dense" or "auto"."""

    def __init__(
        self,
        backend: str,
        settings: Config,
        dataset: Dataset,
        network: models.Network,
        choices: Choices,
        device: torch.device,
        folder: Path,
    ) -> None:
        self.store = RunDirectory(folder / backend, say)
        self.record = Record()
        self.wall_seconds: list[float] = []
        self._turns: Turns | None = None
        self.task = Task(settings, dataset, network, device)
        self._chooser = Chooser(self.task, backend, choices, self.store, ALWAYS)
        trainer = TaskTrainer(self.task, self._chooser, self.store)
        self._rounds = Rounds(trainer, self.store, Callbacks(on_round=self._round_over), self.task.memory_format)

    def play(self, turns: Turns) -> None:
        """All rounds, the other side's in between."""
        self._turns = turns
        with self.store.held(new=True):
            self.record = self._rounds.play(resume=False)

    def _round_over(self, record: Record) -> None:
        assert self._turns is not None
        self.wall_seconds.append(self._turns.pass_on())

    def ways(self, masks: Masks, round: int) -> dict[str, Way]:
        """How each side trained `round`, whose masks these are, if this is auto's."""
        step = next((row for row in self.record.chosen if (row.round, row.operation) == (round, STEP)), None)
        dense = self._chooser.dense(masks, round)
        return {"dense": dense, "auto": Way(step.backend, step.memory_format) if step else dense}


def play(settings: Config, dataset: Dataset, device: torch.device) -> list[dict[str, Any]]:
    """A row a round, of both sides."""
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    choices = Choices()
    with tempfile.TemporaryDirectory() as folder, remembering(choices):
        # Both are given the same choices: `remembering` is the process's, and only auto makes any.
        sides = {name: Side(name, settings, dataset, network, choices, device, Path(folder)) for name in SIDES}
        Turns([side.play for side in sides.values()]).run()
        auto = sides["auto"]
        rows = []
        for round, row in enumerate(auto.record.rounds):
            ticket = auto.store.ticket_path(round)
            masks = {name: mask.to(device) for name, mask in read_ticket(ticket).masks.items()}
            ways = auto.ways(masks, round)
            auto.task.model.load_state_dict(load_ticket(ticket).state_dict())
            memory = {
                name: measured(partial(auto.task.contestant, way, masks, round), masks, device)
                for name, way in ways.items()
            }
            found = {
                name: {
                    "accuracy": side.record.rounds[round].accuracy_retrained,
                    "training_seconds": side.record.rounds[round].seconds,
                    "wall_seconds": side.wall_seconds[round],
                }
                for name, side in sides.items()
            }
            rows.append(
                {
                    "round": round,
                    "density": row.density,
                    "live_weights": row.live_weights,
                    "iterations": row.iterations - (auto.task.rewind_iteration if round else 0),
                    "step_ms": row.step_ms,
                    "dense_step_ms": row.dense_step_ms,
                    "trained_by": ways["auto"].backend,
                    "memory_formats": {name: way.memory_format for name, way in ways.items()},
                    "kernels": kernels_of(auto.record.chosen, round),
                    "sides": {name: found[name] | memory[name] for name in SIDES},
                }
            )
    return rows


def with_fewer(dataset: Dataset, images: int) -> Dataset:
    """`dataset` with so many test images, and at most as many to validate on, taken evenly: they may be sorted."""

    def part(split: Split) -> Split:
        step = max(1, len(split) // images)
        return Split(split.images[::step][:images], split.labels[::step][:images])

    return replace(dataset, validation=part(dataset.validation), test=part(dataset.test))
