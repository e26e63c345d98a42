"""Which backend trains a round, and, under auto, what was chosen layer by layer, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lth_sparse.backends.auto import candidates
from lth_sparse.backends.choices import OPERATIONS, Choice, Choices, StepKey
from lth_sparse.backends.registry import with_kernels
from lth_sparse.lottery.task import Task
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.storage.record import STEP, Chosen
from lth_sparse.storage.run_directory import RunDirectory, read_choices
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import aligned, say


class Chooser:
    """Settles what trains each mask of a run whose backend is `backend`, a name that `backends.registry.resolve` gave.

    Under auto it measures nothing that `choices` know, and adds what it measured; a training whose step auto would not
    make faster, dense does. `write()` keeps them with the run: it comes before any state that rests on them.
    """

    def __init__(self, task: Task, backend: str, choices: Choices, store: RunDirectory) -> None:
        self.choices = choices
        self._task = task
        self.backend = backend
        self._store = store
        self._written = 0

    def choose(self, masks: Masks, round: int) -> tuple[str, list[Chosen]]:
        """The backend that trains `masks` in `round`, and the rows of the record that say why, if auto chose it."""
        if self.backend != "auto":
            return self.backend, []
        if len(candidates()) == 1:
            return "dense", []
        rows: list[Chosen] = []
        if all(bool(mask.all()) for mask in masks.values()):
            choice, why = Choice("dense"), "nothing is pruned"
        else:
            rows = self._layers(masks, round)
            choice, why = self._step(masks, rows, round)
        self.write()
        return choice.backend, [*rows, chosen(round, "", masking.density(masks), STEP, choice, why)]

    def _layers(self, masks: Masks, round: int) -> list[Chosen]:
        training = self._task.training(self._task.copy(masks, "auto"), masks, (round, "timing"))
        return layers_chosen(training.model, training.step, self.choices, round)

    def _step(self, masks: Masks, layers: list[Chosen], round: int) -> tuple[Choice, str]:
        """Whether sparse layers or masked dense PyTorch make the faster step, both measured whole."""
        task = self._task
        key = StepKey(
            task.network.name,
            task.network.input_shape,
            task.batches(round).size,
            task.config.training.optimizer,
            tuple(int(mask.sum()) for mask in masks.values()),
            task.device.type,
            torch.get_num_threads(),
        )
        if key not in self.choices.steps:
            if all(row.backend == "dense" for row in layers):
                return Choice("dense"), "it is the fastest at every operation of every layer"
            auto_ms, dense_ms = task.times("auto", masks, round)
            faster = "auto" if auto_ms < dense_ms else "dense"
            self.choices.steps[key] = Choice(faster, {"auto": auto_ms, "dense": dense_ms})
        return self.choices.steps[key], ""

    def write(self) -> None:
        """Writes the choices where they are more than were written."""
        if len(self.choices) != self._written:
            self._store.write_choices(self.choices)
            self._written = len(self.choices)


def choices_of(path: Path, backend: str, device: torch.device) -> Choices:
    """What the auto backend chose in the run that left `path`. Raises InputError where it cannot be taken over."""
    if backend != "auto":
        raise InputError(f"--choices {path} is for --backend auto; this run has --backend {backend}")
    choices = read_choices(path)
    for name in sorted(choices.backends()):
        reason = with_kernels().get(name, "there is no such backend")
        if reason:
            raise InputError(f'{path} chose backend "{name}", which cannot be used here: {reason}')
    threads = torch.get_num_threads()
    strange = choices.made_elsewhere(device.type, threads)
    if strange:
        say(
            f"{strange} of the {len(choices)} choices in {path} were made on another device or with other than the "
            f"{threads} threads here: they do not apply, and what they chose is measured again"
        )
    return choices


def layers_chosen(model: nn.Module, step: Callable[[], None], choices: Choices, round: int) -> list[Chosen]:
    """What `choices` hold for each sparse layer of `model` after `step`, a training step on it, which measures what
    they do not hold yet."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseConv2d | SparseLinear)}
    shapes: dict[str, tuple[int, ...]] = {}

    def note_shape(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: shapes.update({name: tuple(inputs[0].shape)})

    hooks = [layer.register_forward_pre_hook(note_shape(name)) for name, layer in layers.items()]
    step()
    for hook in hooks:
        hook.remove()
    known = {
        (key.operation, key.spec, key.input_shape, key.nnz, key.dtype): choice
        for key, choice in choices.layers.items()
        if key.threads == torch.get_num_threads()
    }
    found = []
    for name, shape in shapes.items():
        layer = layers[name]
        for operation in OPERATIONS:
            choice = known.get((operation, layer.spec, shape, layer.pattern.nnz, layer.values.dtype))
            # The first layer of a network is not asked for the gradient of its input.
            if choice is not None:
                found.append(chosen(round, name, layer.pattern.density, operation, choice))
    return found


def chosen(round: int, layer: str, density: float, operation: str, choice: Choice, note: str = "") -> Chosen:
    """The row of the record for `choice`."""
    notes = [note] if note else []
    notes += [f"{name} failed: {reason}" for name, reason in choice.failed.items()]
    if choice.measured_at is not None:
        notes.append(f"measured at a batch of {choice.measured_at}")
    return Chosen(round, layer, density, operation, choice.backend, dict(choice.milliseconds), "; ".join(notes))


def lines(rows: Sequence[Chosen]) -> list[str]:
    """One round's choices for a terminal: the whole step, then a line a layer."""
    (step,) = [row for row in rows if row.operation == STEP]
    cells = [["layer", "live", *OPERATIONS]]
    for layer in dict.fromkeys(row.layer for row in rows if row.operation != STEP):
        of_layer = {row.operation: row for row in rows if row.layer == layer}
        density = next(iter(of_layer.values())).density
        times = [of_layer[name].times() if name in of_layer else "-" for name in OPERATIONS]
        cells.append([layer, f"{density:.1%}", *times])
    table = ["  " + line for line in aligned(cells)] if len(cells) > 1 else []
    notes = [f"  {row.layer}, {row.operation}: {row.note}" for row in rows if row.note and row.operation != STEP]
    return [f"round {step.round}: {step.sentence()}", *table, *notes]
