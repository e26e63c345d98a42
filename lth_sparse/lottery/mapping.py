"""A ticket on another network: which of its layers stands for which, and what becomes of masks of another shape.

- A layer stands for the layer of its name. In a list of blocks (`blocks.3.conv1`, `layer2.0.conv1`) it is the block
  that counts, by its place in its stage, which ends where the width changes. A stage with more blocks than the ticket's
  repeats the ticket's, the first one left out, in turn; one with fewer leaves the last ones out: the elastic ticket of
  Chen et al. 2021 (arXiv:2103.16547). So do layers that are numbered within a stage (`conv3_4`, `conv2b`).
- Channels beyond the ticket's repeat its own from the first one on, and those that the network has not are left out:
  entry (o, i) of a mask is that of (o modulo the ticket's, i modulo the ticket's).
- A head for another number of classes, a layer that the ticket has nothing for, and one on flattened images of another
  size, whose inputs are other pixels, stay whole.

Weights are the ticket's where a layer stands for itself in its own shape; copies would be trained alike, so elsewhere
they are the network's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_sparse.lottery.proof import Weights
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks, weight_name
from lth_sparse.storage.ticket import Ticket
from lth_sparse.system.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class MappedLayer:
    """`source`: the ticket's layer, "" where the layer stays whole. `how`: what was done with its mask, in words."""

    layer: str
    source: str
    how: str


@dataclass(frozen=True)
class MappedTicket:
    """`masks`: for every prunable layer of the network. `weights`: entries of its state dict that are the ticket's."""

    masks: Masks
    weights: Weights
    layers: list[MappedLayer]


def mapped(ticket: Ticket, model: nn.Module) -> MappedTicket:
    """`ticket` on the dense `model`, on the CPU.

    Raises InputError, naming the layer and the shapes, where kernels are of other sizes, where a list of blocks has
    another number of stages, and where the ticket has no layer for any of the model's.
    """
    shapes = {name: tuple(weight.shape) for name, weight in masking.prunable(model).items()}
    sources = {name: tuple(mask.shape) for name, mask in ticket.masks.items()}
    kinds = masking.kinds(model)
    counterparts = _counterparts(sources, shapes)
    masks: Masks = {}
    weights: Weights = {}
    layers: list[MappedLayer] = []
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in shapes.items():
        source, itself = counterparts[name]
        if not source:
            masks[name] = torch.ones(shape, dtype=torch.bool)
            layers.append(MappedLayer(name, "", "whole: the ticket has no such layer"))
            continue
        given = sources[source]
        if kinds[name] == "output" and shape[0] != given[0]:
            masks[name] = torch.ones(shape, dtype=torch.bool)
            layers.append(MappedLayer(name, "", f"whole: {shape[0]} classes, the ticket's are {given[0]}"))
            continue
        if shape[2:] != given[2:]:
            raise InputError(
                f'--ticket: its layer "{source}" has a weight of {_by(given)}, layer "{name}" one of {_by(shape)}: '
                "expected kernels of one size"
            )
        if shape[1] != given[1] and len(shape) == 2 and not _in_turn(name, source, shapes, sources):
            masks[name] = torch.ones(shape, dtype=torch.bool)
            layers.append(MappedLayer(name, "", f"whole: {shape[1]} flattened inputs, the ticket's are {given[1]}"))
            continue
        masks[name] = _repeated(ticket.masks[source], shape)
        if shape != given:
            layers.append(MappedLayer(name, source, f"channels of {_by(given)} repeated or left out"))
        elif not itself:
            layers.append(MappedLayer(name, source, "another block's"))
        else:
            layers.append(MappedLayer(name, source, "as it is"))
            for of_layer in ("weight", "bias"):
                own, theirs = _entry(name, of_layer), _entry(source, of_layer)
                if theirs in ticket.weights and state.get(own) == tuple(ticket.weights[theirs].shape):
                    weights[own] = ticket.weights[theirs]
    inner = [layer for layer in layers if kinds[layer.layer] != "output"] or layers
    if not any(layer.source for layer in inner):
        raise InputError(
            f"--ticket: it has no layer for any of the model's but its head: its layers are {_some(sources)}, the "
            f"model's {_some(shapes)}"
        )
    if list(sources) == list(shapes):  # One architecture: what is no weight of a layer is the same thing, too.
        weights |= {
            name: tensor
            for name, tensor in ticket.weights.items()
            if state.get(name) == tuple(tensor.shape) and _layer_of(name) not in shapes
        }
    return MappedTicket(masks, weights, layers)


def _in_turn(name: str, source: str, shapes: Mapping[str, Shape], sources: Mapping[str, Shape]) -> bool:
    """Whether the inputs of a linear layer, on either side, are the outputs of the layer before it, each of as many
    pixels: then they are channels, in turn."""
    pixels: list[float] = []
    for layer, of in ((name, shapes), (source, sources)):
        order = list(of)
        place = order.index(layer)
        pixels.append(of[layer][1] / of[order[place - 1]][0] if place else 0)
    return pixels[0] == pixels[1] != 0


def _entry(layer: str, name: str) -> str:
    return weight_name(layer)[: -len("weight")] + name


def _layer_of(entry: str) -> str:
    return entry.rpartition(".")[0]


def _repeated(mask: Tensor, shape: Shape) -> Tensor:
    for dimension in (0, 1):
        mask = mask.index_select(dimension, torch.arange(shape[dimension]) % mask.shape[dimension])
    return mask.clone()


def _counterparts(sources: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> dict[str, tuple[str, bool]]:
    """Layer -> (the ticket's layer that stands for it or "", whether that is the same place in the network)."""
    theirs, ours = _stages(sources), _stages(shapes)
    found: dict[str, tuple[str, bool]] = {}
    for name in shapes:
        place = _place(name)
        if place is None:
            found[name] = (name, True) if name in sources else ("", False)
            continue
        container, index, rest = place
        if container not in theirs:
            found[name] = ("", False)
            continue
        if len(ours[container]) != len(theirs[container]):
            raise InputError(
                f'--ticket: "{container}" has {len(theirs[container])} stages in the ticket and '
                f"{len(ours[container])} in the model: expected as many"
            )
        stage = next(number for number, blocks in enumerate(ours[container]) if index in blocks)
        position, blocks = ours[container][stage].index(index), theirs[container][stage]
        other = position
        if position >= len(blocks):
            other = 1 + (position - 1) % (len(blocks) - 1) if len(blocks) > 1 else 0
        source = f"{container}{blocks[other]}{rest}"
        found[name] = (source, other == position) if source in sources else ("", False)
    return found


BLOCK = re.compile(r"(.*?\.)?([^.]*?\.)(\d+)(\..+)")
NUMBERED = re.compile(r"(.*_)(\d+)()|(.*\d)([a-z])()")


def _place(name: str) -> tuple[str, str, str] | None:
    """("blocks.", "3", ".conv1") of "blocks.3.conv1", ("conv3_", "4", "") of "conv3_4"; None where there is no list."""
    if found := BLOCK.fullmatch(name):
        return (found[1] or "") + found[2], found[3], found[4]
    if found := NUMBERED.fullmatch(name):
        container, index, rest = (part for part in found.groups() if part is not None)
        return container, index, rest
    return None


def _stages(shapes: Mapping[str, Shape]) -> dict[str, list[list[str]]]:
    """List of blocks -> its stages, each the numbers of its blocks, in the order of the network."""
    widths: dict[str, dict[str, int]] = {}
    for name, shape in shapes.items():
        if (place := _place(name)) is not None:
            container, index, _ = place
            widths.setdefault(container, {}).setdefault(index, shape[0])
    found: dict[str, list[list[str]]] = {}
    for container, blocks in widths.items():
        stages: list[list[str]] = []
        last: int | None = None
        for index, width in blocks.items():
            if width != last:
                stages.append([])
            stages[-1].append(index)
            last = width
        found[container] = stages
    return found


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _some(names: Mapping[str, Shape], most: int = 4) -> str:
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
