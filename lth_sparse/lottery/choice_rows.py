"""What was measured and chosen, as rows of the record and as lines on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lth_sparse.backends.choices import OPERATIONS, Choice, Choices, FormatChoice
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.storage.record import STEP, Chosen
from lth_sparse.system.messages import aligned


def layers_chosen(
    model: nn.Module, step: Callable[[], None], choices: Choices, round: int, memory_format: str
) -> list[Chosen]:
    """What `choices` hold for each sparse layer of `model` after `step`, a training step on it in `memory_format`,
    which measures what they do not hold yet."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseConv2d | SparseLinear)}
    shapes: dict[str, tuple[int, ...]] = {}

    def note_shape(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: shapes.update({name: tuple(inputs[0].shape)})

    hooks = [layer.register_forward_pre_hook(note_shape(name)) for name, layer in layers.items()]
    step()
    for hook in hooks:
        hook.remove()
    known = {
        (key.operation, key.spec, key.input_shape, key.nnz, key.dtype, key.layout): choice
        for key, choice in choices.layers.items()
        if key.threads == torch.get_num_threads()
    }
    # What is as large as one pixel, or has one channel, is contiguous in any format.
    layouts = (memory_format, "mixed", "contiguous", "strided")
    found = []
    for name, shape in shapes.items():
        layer = layers[name]
        for operation in OPERATIONS:
            keys = [(operation, layer.spec, shape, layer.pattern.nnz, layer.values.dtype, each) for each in layouts]
            choice = next((known[key] for key in keys if key in known), None)
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


def format_times(choice: FormatChoice) -> str:
    """The format chosen with its milliseconds, and the other in brackets."""
    (other,) = choice.milliseconds.keys() - {choice.memory_format} or {""}
    own = f"{choice.memory_format} {choice.milliseconds[choice.memory_format]:.2f}"
    told = f"{own} ({other} {choice.milliseconds[other]:.2f}) ms" if other else f"{own} ms"
    return told if choice.measured_at is None else f"{told} with {choice.measured_at:,} weights"


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
