"""The portable ticket: a mask at one bit a weight, and the live weights that it was rewound to, in one small file.

Layout (safetensors, sealed by a SHA-256): `mask/LAYER` uint8, the mask's bits in row-major order, most significant
bit first, padded to a byte; `values/LAYER` [nnz], the live rewind weights in the same order; `rest/NAME`, every other
entry of the state dict (biases, BatchNorm). Metadata: `lth_sparse`, a JSON object with the format's version, the
network, the shapes of the masks, hashes, and what the maker adds (accuracies, configuration). No pickle.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.nn.masks import Masks, weight_name
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket_metadata import check_network, described, read_network, read_shapes
from lth_sparse.storage.ticket_state import put_into, taken_from
from lth_sparse.system.errors import InputError

VERSION = 1


@dataclass(frozen=True)
class Ticket:
    """What a ticket file holds. `weights`: the whole state dict, rewound, its pruned weights exactly zero."""

    masks: Masks
    weights: dict[str, Tensor]
    network: models.Network | None
    metadata: dict[str, Any]


def pack(mask: Tensor) -> Tensor:
    """bool of any shape -> uint8, one bit a weight in row-major order, padded with zeros to a byte."""
    return torch.from_numpy(np.packbits(mask.cpu().reshape(-1).numpy()))


def unpack(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of `shape` that `pack` made `bits` of. Raises ValueError when their number does not fit the shape."""
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.numel() != -(-count // 8):
        raise ValueError(f"a mask of shape {shape} takes {-(-count // 8)} bytes, given {bits.numel()}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool)).reshape(shape)


def save_ticket(
    path: str | PathLike[str],
    model: nn.Module,
    masks: Masks | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    network: models.Network | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes the ticket that `masks` and the rewind weights make, whole or not at all.

    `model`: dense, under `torch.nn.utils.prune`, sparse, or one of these inside DataParallel, DistributedDataParallel
    or `torch.compile`; the ticket is that of the network inside and loads into each of these forms.
    `masks`: {layer: bool, shape of its weight} for layers of `model`, beside those that it has itself, in sparse layers
    or of prune (default: those alone). A mask of a tied weight holds under all its names.
    `weights`: a state dict of `model`, in any of these forms, the one to rewind to (default: its weights now).
    `network`: how to build the model again, for the networks of `lth_sparse.models`, torchvision, timm, and functions
    of your own; without it `load_ticket` has to be given a model.
    `metadata`: what else the file should say, as JSON holds it; a tensor or an array of at most 1000 numbers becomes a
    list, one of no dimension a number.

    Raises InputError for a mask that is not bool, not of its weight's shape, of a layer that `model` lacks or has
    another mask for, for tied weights with different masks, when there is no mask to be found, and for metadata that
    JSON has no form for or whose keys are the format's own.
    """
    added = described(metadata or {})
    check_network(network)
    chosen, dense, rest = taken_from(model, masks, weights)
    tensors: dict[str, Tensor] = {}
    for layer, mask in chosen.items():
        tensors[f"mask/{layer}"] = pack(mask)
        tensors[f"values/{layer}"] = dense[layer][mask.to(dense[layer].device)]
    tensors |= {f"rest/{name}": value for name, value in rest.items()}
    packed = {name: value for name, value in tensors.items() if name.startswith("mask/")}
    description = {
        "ticket_version": VERSION,
        "network": asdict(network) if network else None,
        "shapes": {layer: list(mask.shape) for layer, mask in chosen.items()},
        "mask_sha256": sealed.digest(packed),
        **added,
    }
    sealed.write(Path(path), tensors, description)


def read_ticket(path: str | PathLike[str]) -> Ticket:
    """What the ticket at `path` holds, bit for bit, without building its network.

    Raises InputError (a ValueError) when the file is damaged or no ticket, OSError when it cannot be read.
    """
    tensors, metadata = sealed.read(Path(path))
    if not {"ticket_version", "network", "shapes"} <= metadata.keys():
        raise InputError(f"{path} is not a ticket: its metadata lacks ticket_version, network or shapes")
    version = metadata["ticket_version"]
    if type(version) is not int or version != VERSION:
        raise InputError(f"{path} is a ticket of version {reprlib.repr(version)}; this package reads version {VERSION}")
    network, shapes = read_network(path, metadata), read_shapes(path, metadata)
    masks: Masks = {}
    weights = {name[5:]: value for name, value in tensors.items() if name.startswith("rest/")}
    try:
        for layer, shape in shapes.items():
            if weight_name(layer) in weights:
                raise ValueError(f"layer {layer!r}: its weight is there with its mask and without")
            masks[layer], weights[weight_name(layer)] = _masked(layer, shape, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole ticket: {error}") from error
    packed = {name: value for name, value in tensors.items() if name.startswith("mask/")}
    for name in sorted(tensors):
        if name.startswith(("mask/", "values/")) and name.partition("/")[2] not in shapes:
            raise InputError(f"{path} is not a whole ticket: {name} has no shape in the metadata")
    if metadata.get("mask_sha256", sealed.digest(packed)) != sealed.digest(packed):
        raise InputError(f"{path} is not a whole ticket: its masks are not those of mask_sha256")
    return Ticket(masks, weights, network, metadata)


def _masked(layer: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The mask and the weight of a layer. Nothing is made before the bits and the values are known to be as many."""
    bits, values = (tensors.get(f"{kind}/{layer}") for kind in ("mask", "values"))
    if bits is None or values is None:
        raise ValueError(f"layer {layer!r} has no {'mask' if bits is None else 'values'}")
    if bits.dim() != 1 or not (values.is_floating_point() or values.is_complex()):
        raise ValueError(f"layer {layer!r}: got a mask {tuple(bits.shape)} and values of {values.dtype}")
    try:
        mask = unpack(bits, shape)
        if values.shape != (live := int(mask.sum()),):
            raise ValueError(f"its mask has {live} live weights, its values have shape {tuple(values.shape)}")
        weight = torch.zeros(shape, dtype=values.dtype)
        weight[mask] = values
    except (ValueError, RuntimeError) as error:  # NotImplementedError among them, of dtypes that cannot be moved.
        raise ValueError(f"layer {layer!r}: {error}") from error
    return mask, weight


def load_ticket(path: str | PathLike[str] | Ticket, model: nn.Module | None = None) -> nn.Module:
    """The ticket's network, rewound: its live weights are the saved ones bit for bit, its pruned weights exactly 0.

    `path`: a file, or a `Ticket` that is read already, such as `read_open_lth` gives.
    `model` (default: a new one of the network that the ticket names, in the ticket's dtypes; it may be wrapped as for
    `save_ticket`) receives the weights, in its own dtypes, and is returned; its attribute `ticket` is the `Ticket`,
    whose `masks` `lth.sparsify` takes. Where `model` has masks of its own, in sparse layers or of
    `torch.nn.utils.prune`, it gets the ticket's; its parameters stay the same objects, but an optimizer's state for
    `values` no longer fits when their number changes. A dense layer gets zeros.

    A file does not decide which code runs: a ticket that names `module:function` needs `model`, unless that module is
    imported already and its function has a parameter `classes` or `num_classes`.

    Raises InputError when the file is damaged or names no network and no `model` is given, or when it does not fit
    `model`, which then stays as it was; OSError when it cannot be read.
    """
    ticket = path if isinstance(path, Ticket) else read_ticket(path)
    path = "the ticket" if isinstance(path, Ticket) else path
    if model is None:
        if ticket.network is None:
            raise InputError(f"{path} does not name a network of lth_sparse; give load_ticket a model to put it into")
        model = _build(path, ticket.network, ticket.weights)
    try:
        masks, weights = put_into(model, ticket.masks, ticket.weights)
    except (RuntimeError, InputError) as error:
        raise InputError(f"{path} does not fit the model: {' '.join(str(error).split())}") from error
    model.ticket = replace(ticket, masks=masks, weights=weights)  # type: ignore[assignment]
    return model


def _build(path: str | PathLike[str], network: models.Network, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network that a ticket names, after it is known to be no larger than the weights that are there for it."""
    models.refuse_untrusted(network.name, str(path))
    try:
        with torch.device("meta"):
            size = sum(value.numel() for value in models.build(network, seed=0).state_dict().values())
    except InputError as error:
        raise InputError(f"{path}: metadata 'network': {error}") from error
    if size > (held := sum(value.numel() for value in weights.values())):
        raise InputError(
            f"{path} does not fit the network that it names: {network.name} for images of shape "
            f"{list(network.input_shape)} and {network.classes} classes has {size} numbers, the ticket {held}"
        )
    model = models.build(network, seed=0)
    for name, tensor in model.state_dict(keep_vars=True).items():
        given = weights.get(name)
        if given is not None and given.is_floating_point() and tensor.is_floating_point():
            tensor.data = tensor.data.to(given.dtype)
    return model
