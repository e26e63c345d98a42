"""Both lotteries, every round played for real, a round of each in turn: seconds, accuracies and bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.lottery.training_state import measured
from bench.lottery.turns import Turns
from lth_sparse import models
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.rounds import Callbacks, Lottery
from lth_sparse.lottery.task import Task
from lth_sparse.lottery.training import Training
from lth_sparse.nn import sparsify
from lth_sparse.settings.config import Config
from lth_sparse.storage.record import STEP, Record
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import load_ticket, read_ticket
from lth_sparse.system.messages import say

SIDES = ("dense", "auto")


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
        task = Task(settings, dataset, network, device)
        chooser = Chooser(task, backend, choices, self.store)
        self._lottery = Lottery(task, chooser, self.store, Callbacks(on_round=self._round_over))

    def play(self, turns: Turns) -> None:
        """All rounds, the other side's in between."""
        self._turns = turns
        with self.store.held():
            self.record = self._lottery.run(resume=False)

    def _round_over(self, record: Record) -> None:
        assert self._turns is not None
        self.wall_seconds.append(self._turns.pass_on())

    def trained_by(self) -> dict[int, str]:
        """Round -> the backend that trained it, as far as auto chose it."""
        return {row.round: row.backend for row in self.record.chosen if row.operation == STEP}


def play(settings: Config, dataset: Dataset, device: torch.device, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a round, of the sides called `names`, the last of which is auto."""
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    choices = Choices()
    with tempfile.TemporaryDirectory() as folder, remembering(choices):
        # Both are given the same choices: `remembering` is the process's, and only auto makes any.
        sides = {name: Side(name, settings, dataset, network, choices, device, Path(folder)) for name in names}
        Turns([side.play for side in sides.values()]).run()
        auto = sides["auto"]
        trained_by = auto.trained_by()
        rows = []
        for round, row in enumerate(auto.record.rounds):
            by = {"dense": "dense", "auto": trained_by.get(round, "auto")}
            memory = memory_of(settings, dataset, device, auto.store.ticket_path(round), by)
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
                    "iterations": row.iterations - (settings.pruning.rewind_iteration if round else 0),
                    "step_ms": row.step_ms,
                    "dense_step_ms": row.dense_step_ms,
                    "trained_by": by["auto"],
                    "sides": {name: found.get(name, {}) | memory[name] for name in SIDES},
                }
            )
    return rows


def memory_of(
    settings: Config, dataset: Dataset, device: torch.device, ticket: Path, trained_by: dict[str, str]
) -> dict[str, dict[str, int]]:
    """Side -> what training the ticket held, by the backend that trained it."""

    def training(backend: str) -> Training:
        model = load_ticket(ticket).to(device).to(memory_format=layout)
        if backend != "dense":
            model = sparsify(model, masks, backend)
        batches = Batches(images, settings.training.batch_size, "none", 0)
        return Training(model, masks, images, batches, settings.training, (0, "memory"))

    layout = models.faster_layout(load_ticket(ticket))
    images = dataset.to(device, layout)
    masks = {name: mask.to(device) for name, mask in read_ticket(ticket).masks.items()}
    return {side: measured(partial(training, backend), masks, device) for side, backend in trained_by.items()}
