"""All that is verified of one subject: its layers, the whole network, a training of some steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lth_sparse.system.command_line import out_of_memory
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.messages import say
from lth_sparse.system.seeding import generator
from lth_sparse.verification import layers, network
from lth_sparse.verification.contenders import not_timed
from lth_sparse.verification.judgement import Row
from lth_sparse.verification.subject import Subject


@dataclass(frozen=True)
class Conditions:
    """What a verification holds fixed. `steps`: of the training; 0 for none. `seed`: of inputs and targets."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    steps: int
    seed: int


def rows_of(subject: Subject, backends: Sequence[str], under: Conditions) -> list[Row]:
    """A row for each layer of `subject`, for the whole network and for its training, of each of the `backends`.

    Raises InputError where the network does not take such inputs, or gives anything but one tensor of real numbers.
    """
    subject, dropout = _moved_to(subject, under.device, under.dtype)
    shape = (under.batch_size, *subject.input_shape)
    images = torch.randn(shape, generator=generator(under.seed, "images")).to(under.device, under.dtype)
    output = _tried(subject, images)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise InputError(f"{subject.name}: expected a network whose output is one tensor of real numbers")
    untimed = {name: not_timed(name) for name in backends}
    cases, unreached = layers.cases(subject, images, under.seed)
    by_layer: dict[str, list[Row]] = {name: [] for name in backends}
    for case in cases:
        yardstick = layers.Yardstick(case)
        for name in backends:
            by_layer[name].append(layers.verified(case, yardstick, subject, name, untimed[name]))
    baseline = network.Baseline(subject, images, under.steps, under.seed)
    rows = []
    for name in backends:
        rows += by_layer[name]
        rows += [
            Row(
                subject.name, subject.sparsity, name, layer, "layer",
                notes=("not verified by itself: the network does not call it",),
            )
            for layer in unreached
        ]  # fmt: skip
        rows += network.verified(baseline, name, untimed[name])
    if dropout:
        say(f"{', '.join(dropout)}: dropout is off, so that both sides compute the same")
    return rows


def _moved_to(subject: Subject, device: torch.device, dtype: torch.dtype) -> tuple[Subject, list[str]]:
    """The subject in this dtype on this device, in training mode; and its dropout layers, which are switched off."""
    # What a user has frozen is verified, too.
    model = subject.model.to(device, dtype).train().requires_grad_()
    dropout = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.eval()
            dropout.append(name)
    masks = {name: mask.to(device) for name, mask in subject.masks.items()}
    return Subject(subject.name, model, masks, subject.input_shape, subject.left_dense), dropout


def _tried(subject: Subject, images: Tensor) -> Any:
    """The output of a user's network, whose own mistakes are told as such."""
    try:
        with torch.no_grad():
            return subject.model(images)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise InputError(
            f"{subject.name} does not take an input of shape {tuple(images.shape)} (--batch-size, --input-shape): "
            f"{because(error)}"
        ) from error
