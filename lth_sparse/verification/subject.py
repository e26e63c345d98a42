"""What is verified: a network and its masks, from a registered name, a user's own function, or a ticket."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.lottery import pruning
from lth_sparse.nn import SparseConv2d, SparseLinear, densify, sparsify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.nn.pruned_layers import check_layer
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage import ticket
from lth_sparse.system.errors import InputError

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
"""Of registered networks, unless said otherwise: CIFAR-10's."""
SPARSITY = 0.9


@dataclass(frozen=True)
class Subject:
    """A dense network whose pruned weights are exactly 0. `masks`: of the layers that can be sparse.

    `input_shape`: of one example, without the batch. `left_dense`: why each other layer with a weight stays as it is.
    """

    name: str
    model: nn.Module
    masks: Masks
    input_shape: tuple[int, ...]
    left_dense: dict[str, str] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """Pruned weights over all weights of the masked layers."""
        return 1 - masking.density(self.masks)


def subjects(
    model: str | None,
    ticket_path: str | None,
    input_shape: tuple[int, ...] | None,
    sparsities: Sequence[float] | None,
    seed: int,
) -> list[Subject]:
    """One for each of `sparsities`, each layer pruned to it by magnitude; or one, with the masks that are there.

    A ticket has its masks; so has a user's own network that is pruned already, unless `sparsities` are given.
    Raises InputError for what cannot be used, OSError for a ticket that cannot be read.
    """
    if sparsities is not None and not sparsities:
        raise InputError("--sparsity is empty: give fractions such as 0.5,0.9")
    for sparsity in sparsities or ():
        if not 0 <= sparsity < 1:
            raise InputError(f"--sparsity {sparsity:g}: expected fractions of at least 0 and below 1, such as 0.9")
    if ticket_path is not None:
        if sparsities:
            raise InputError("--sparsity: a ticket has its own masks; leave the option out, or give --model instead")
        return [_of_ticket(ticket_path, model, input_shape, seed)]
    network, shape = _network(model or "conv4", input_shape, seed)
    name = model or "conv4"
    try:
        with warnings.catch_warnings():
            # It is pruned below, then.
            warnings.filterwarnings("ignore", "sparsify: nothing is pruned", UserWarning)
            found = sparsify(network, backend="dense")
    except (TypeError, ValueError) as error:
        raise InputError(f"--model {name}: {error}") from error
    own = {layer: module.mask for layer, module in found.named_modules() if isinstance(module, _SPARSE)}
    network = densify(found)
    layers, left = _layers(network)
    if not layers:
        raise InputError(f"--model {name}: it has no nn.Conv2d and no nn.Linear, so nothing in it can be sparse")
    if own and not sparsities:
        return [Subject(name, network, own, shape, left)]
    return [
        _pruned(Subject(name, copy.deepcopy(network), layers, shape, left), each) for each in sparsities or [SPARSITY]
    ]


_SPARSE = (SparseConv2d, SparseLinear)


def _pruned(subject: Subject, sparsity: float) -> Subject:
    """The same with its layers cut to `sparsity`, the largest magnitudes kept; `subject.masks` prune nothing."""
    weights = {name: masking.prunable(subject.model)[name] for name in subject.masks}
    keep = dict.fromkeys(weights, 1 - sparsity)
    chosen = pruning.magnitude(
        weights, subject.masks, keep, PruningConfig(scope="layerwise"), masking.kinds(subject.model)
    )
    with torch.no_grad():
        for name, mask in chosen.items():
            # As strong a signal passes as before, so that the network learns.
            weights[name].mul_(weights[name].norm() / (weights[name] * mask).norm().clamp_min(1e-30))
    masking.apply(subject.model, chosen)
    return Subject(subject.name, subject.model, chosen, subject.input_shape, subject.left_dense)


def _of_ticket(path: str, model: str | None, input_shape: tuple[int, ...] | None, seed: int) -> Subject:
    own = shape = None
    if model is not None:
        named = ticket.read_ticket(path).network
        classes = named.classes if named is not None else CLASSES
        own, shape = _network(model, input_shape or (named.input_shape if named is not None else None), seed, classes)
    network = ticket.load_ticket(path, own)
    found = network.ticket
    assert isinstance(found, ticket.Ticket)
    if shape is None:
        assert found.network is not None  # Or load_ticket would have refused.
        shape = found.network.input_shape
        if input_shape not in (None, shape):
            raise InputError(f"--input-shape: the ticket's network takes {_words(shape)}; leave the option out")
    _, left = _layers(network)
    left |= {name: "the ticket has no mask for it" for name in masking.prunable(network) if name not in found.masks}
    del network.ticket
    return Subject(path, network, found.masks, shape, left)


def _network(
    name: str, input_shape: tuple[int, ...] | None, seed: int, classes: int = CLASSES
) -> tuple[nn.Module, tuple[int, ...]]:
    """A dense network and the shape of its input."""
    if not models.is_foreign(name):
        shape = input_shape or IMAGE_SHAPE
        smallest = models.minimum_size(name)
        if len(shape) != 3 or min(shape[1:]) < smallest:
            raise InputError(
                f"--input-shape {_words(shape)}: {name} takes images, channels,height,width, of at least "
                f"{smallest} x {smallest} pixels"
            )
        return models.build(models.Network(name, (shape[0], shape[1], shape[2]), classes), seed), shape
    if input_shape is None:
        raise InputError(
            f"--model {name}: the shape of its input is not known; give that of one example, such as "
            "--input-shape 3,32,32"
        )
    return densify(models.build_foreign(name, input_shape, classes, seed)), input_shape


def _layers(model: nn.Module) -> tuple[Masks, dict[str, str]]:
    """Masks that prune nothing for the layers that can be sparse, and why each other one with a weight cannot."""
    found: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        if not isinstance(module, nn.Conv2d | nn.Linear):
            left[name] = f"{type(module).__name__}: only nn.Conv2d and nn.Linear can be sparse"
            continue
        try:
            check_layer(module)
        except (TypeError, ValueError) as error:
            left[name] = str(error)
        else:
            found[name] = torch.ones_like(weight, dtype=torch.bool)
    return found, left


def _words(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))
