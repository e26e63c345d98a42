"""What the auto backend chose for a network, layer by layer and for its whole training step, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lth_sparse.backends.choices import OPERATIONS, Choice, Choices
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.storage.record import STEP, Chosen
from lth_sparse.system.messages import aligned


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
