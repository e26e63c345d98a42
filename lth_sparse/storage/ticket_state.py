"""Between a model, whatever form it has, and what a ticket holds: masks, and the dense weights beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lth_sparse.nn import forms
from lth_sparse.nn.given_masks import by_layer
from lth_sparse.nn.masks import Masks, weight_name
from lth_sparse.nn.sparse_layer import SparseLayer, check_mask
from lth_sparse.plans.pattern import check_bool
from lth_sparse.system.errors import InputError
from lth_sparse.system.sharding import GATHER, is_distributed


def taken_from(
    model: nn.Module, masks: Mapping[str, Tensor] | None, weights: Mapping[str, Tensor] | None
) -> tuple[Masks, dict[str, Tensor], dict[str, Tensor]]:
    """What a ticket of `model` holds: masks, the dense weight of each of their layers, the rest of the state dict.

    Raises InputError for masks or weights that do not fit the model or each other.
    """
    network, prefix = forms.unwrap(model)
    ties = forms.tied(network)
    chosen = _shared_by_ties(network, _chosen(network, prefix, masks), ties)
    state = _state(network, prefix, weights)
    dense = {layer: _take_weight(network, state, layer, mask) for layer, mask in chosen.items()}
    _keep_pruned(network, state, chosen)
    _tie({**{weight_name(layer): weight for layer, weight in dense.items()}, **state}, state, chosen, ties)
    return chosen, dense, state


def _chosen(network: nn.Module, prefix: str, masks: Mapping[str, Tensor] | None) -> Masks:
    """The masks that are given, and the model's own."""
    try:
        return _beside_own(network, prefix, masks)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def _beside_own(network: nn.Module, prefix: str, masks: Mapping[str, Tensor] | None) -> Masks:
    own = forms.own_masks(network)
    if masks is None:
        if not own:
            raise InputError(
                "masks: the model has none of its own, in sparse layers or of torch.nn.utils.prune; "
                "give {layer: bool tensor}"
            )
        return own
    layers = forms.layers(network)
    chosen = dict(own)
    for layer, mask in by_layer(masks, network, prefix).items():
        if layer not in layers:
            raise InputError(f'masks: the model has no prunable layer "{layer}"; it has {", ".join(layers)}')
        shape = forms.weight_shape(layers[layer])
        check_bool(mask, f'masks["{layer}"]')
        check_mask(mask, mask.new_empty(shape), f'masks["{layer}"]')
        if mask.is_meta or mask.numel() == 0:
            raise InputError(f'masks["{layer}"]: got one without entries, expected bool of shape {shape}; leave it out')
        if layer in own and not torch.equal(mask.cpu(), own[layer].cpu()):
            raise InputError(
                f'masks["{layer}"] is not the mask that the model itself has for it, as a sparse layer or by '
                "torch.nn.utils.prune; leave masks out, or give the model's own"
            )
        chosen[layer] = mask
    return chosen


def _shared_by_ties(network: nn.Module, masks: Masks, ties: list[list[str]]) -> Masks:
    """A mask for each name of a tied weight: what prunes it under one name prunes it under all."""
    own = {weight_name(layer) for layer in forms.own_masks(network)}
    found = _masks_of_ties(
        network, masks, ties, "masks: {!r} and {!r} share their weight, so their masks must be equal"
    )
    for names in ties:
        pruned = [name for name in names if name in own]
        if pruned and (whole := [name for name in names if name not in own]):
            raise InputError(
                f"{pruned[0]!r} is pruned, and {whole[0]!r}, which shares it, is not: a ticket has one mask for both; "
                "prune both, or give each a weight of its own"
            )
    return found


def _state(network: nn.Module, prefix: str, weights: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    state = dict(network.state_dict() if weights is None else weights)
    for part in prefix.split(".")[:-1]:
        if state and all(name.startswith(f"{part}.") for name in state):
            state = {name.removeprefix(f"{part}."): value for name, value in state.items()}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"weights: {name!r} is a {type(value).__name__}; a ticket holds tensors alone")
        if is_distributed(value):
            raise InputError(f"weights: {name!r} is one that FSDP has sharded, expected a whole one: {GATHER}")
        if value.is_meta:
            raise InputError(f"weights: {name!r} is on the meta device, where it has no numbers to save")
    return state


def _take_weight(network: nn.Module, state: dict[str, Tensor], layer: str, mask: Tensor) -> Tensor:
    """The dense weight of `layer`, taken out of `state`, in which it may have any form."""
    name = weight_name(layer)
    start = name.removesuffix("weight")
    alive = None
    if name in state:
        weight = state.pop(name).detach()
    elif {f"{name}_orig", f"{name}_mask"} <= state.keys():
        original, kept = state.pop(f"{name}_orig").detach(), state.pop(f"{name}_mask")
        weight, alive = (original * kept).to(original.dtype), kept != 0
    elif {f"{start}values", f"{start}mask"} <= state.keys():
        values, alive = state.pop(f"{start}values").detach(), state.pop(f"{start}mask")
        weight = values.new_zeros(alive.shape)
        weight[alive] = values
    else:
        raise InputError(
            f"weights: there is no {name!r}, which a ticket needs for the mask of {layer!r}; expected a state dict of "
            "this model, and a weight that is a parameter (torch.nn.utils.parametrize.remove_parametrizations)"
        )
    if weight.shape != mask.shape:
        raise InputError(f"weights: {name!r} has shape {tuple(weight.shape)}, its mask {tuple(mask.shape)}")
    if alive is not None and (missing := int((mask.to(alive.device) & ~alive).sum())):
        raise InputError(f"weights: {name!r} is pruned there at {missing} of the positions that its mask keeps alive")
    return weight


def _keep_pruned(network: nn.Module, state: dict[str, Tensor], masks: Masks) -> None:
    """Masks that no layer of a ticket has, a bias's or a BatchNorm's, stay beside their tensors as prune has them."""
    ticketed = {weight_name(layer) for layer in masks}
    for module_name, module in network.named_modules(remove_duplicate=False):
        for key, (_, mask) in forms.pruned(module).items():
            name = f"{module_name}.{key}".removeprefix(".")
            if name in state and name not in ticketed:
                state |= {f"{name}_orig": state.pop(name), f"{name}_mask": mask}
    for layer in forms.layers(network).keys() - masks.keys():
        name = weight_name(layer)
        start = name.removesuffix("weight")
        for held in ({f"{name}_orig", f"{name}_mask"}, {f"{start}values", f"{start}mask"}):
            if held <= state.keys() and name not in state:
                raise InputError(f"weights: they have a mask for {layer!r}, and masks has none; give it one")


def _tie(
    weights: Mapping[str, Tensor], into: dict[str, Tensor], masks: Mapping[str, Tensor], ties: list[list[str]]
) -> None:
    """Prunes tied weights under the names that are no layer's, such as an embedding's; refuses two that differ."""
    mask_of = {weight_name(layer): mask for layer, mask in masks.items()}
    for names in ties:
        mask = next((mask_of[name] for name in names if name in mask_of), None)
        held = {name: weights[name] for name in names if name in weights}
        if mask is not None:
            for name, value in held.items():
                if value.shape != mask.shape:
                    raise InputError(f"{name!r} has shape {tuple(value.shape)}, and a mask {tuple(mask.shape)}")
            held = {name: value.masked_fill(~mask.to(value.device), 0) for name, value in held.items()}
            into |= {name: value for name, value in held.items() if name in into}
        for name, value in held.items():
            first = next(iter(held))
            if not _same(held[first], value):
                raise InputError(f"the model shares one tensor between {first!r} and {name!r}, which differ here")


def _same(left: Tensor, right: Tensor) -> bool:
    """Equal everywhere, or NaN on both sides."""
    if left.shape != right.shape:
        return False
    right = right.to(left.device)
    return bool(((left == right) | ((left != left) & (right != right))).all())


def put_into(model: nn.Module, masks: Masks, weights: Mapping[str, Tensor]) -> tuple[Masks, dict[str, Tensor]]:
    """Makes `model` what a ticket holds, its masks too, whatever form its layers have; its parameters stay themselves.

    Returns the masks and the weights with those of tied layers that the ticket has under one name only.
    Raises InputError, or load_state_dict's RuntimeError, for what does not fit.
    """
    network, _ = forms.unwrap(model)
    if any(isinstance(value, Tensor) and value.is_meta for value in network.state_dict().values()):
        raise InputError('it is on the meta device, where it has no numbers; call model.to_empty(device="cpu") first')
    ties, held = forms.tied(network), dict(weights)
    masks = _masks_of_ties(network, masks, ties, "it shares one weight between {!r} and {!r}, whose masks differ here")
    _tie(weights, held, masks, ties)
    state = _state_for(network, masks, held)
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        _check_sizes(network, state)
    _load_whole(network, state)
    for module in network.modules():
        for key, (original, mask) in forms.pruned(module).items():
            # The product that prune's hook would make only before the next forward pass.
            setattr(module, key, mask.to(original.dtype) * original)
    return masks, held


def _load_whole(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """load_state_dict, which leaves behind what fits where something does not: here all of it or nothing."""
    before = {name: value.detach().clone() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    for name, value in state.items():
        # What load_state_dict would round, or drop the imaginary part of. torch.nn.utils.prune's masks are floating.
        if name in before and value.dtype != torch.bool and _kind(value) != _kind(before[name]):
            raise InputError(f"its {name!r} is {before[name].dtype}, the ticket's {value.dtype}")
    try:
        network.load_state_dict(state)
    except BaseException:
        network.load_state_dict(before, strict=False)
        raise


def _kind(value: Tensor) -> str:
    return "complex" if value.is_complex() else "floating" if value.is_floating_point() else "whole"


def _masks_of_ties(network: nn.Module, masks: Masks, ties: list[list[str]], differ: str) -> Masks:
    """A mask for each layer of a tied weight. `differ`: the sentence, with two gaps, for layers whose masks do."""
    layer_of = {weight_name(layer): layer for layer in forms.layers(network)}
    for names in ties:
        masked = [layer_of[name] for name in names if layer_of.get(name) in masks]
        for layer in masked:
            if not torch.equal(masks[layer].cpu(), masks[masked[0]].cpu()):
                raise InputError(differ.format(masked[0], layer))
    return forms.shared_by_ties(network, masks)


def _state_for(network: nn.Module, masks: Masks, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that `network` itself would have, were it the ticket."""
    state, expected = dict(weights), network.state_dict().keys()
    for original in [name for name in state if name.endswith("_orig")]:
        name = original.removesuffix("_orig")
        if name in expected and original not in expected and f"{name}_mask" in state:
            state[name] = state.pop(original) * state.pop(f"{name}_mask")
    for module_name, module in network.named_modules(remove_duplicate=False):
        start = f"{module_name}." if module_name else ""
        if isinstance(module, SparseLayer) and f"{start}weight" in state:
            weight = state.pop(f"{start}weight")
            mask = masks.get(module_name, torch.ones_like(weight, dtype=torch.bool))
            state |= {f"{start}mask": mask, f"{start}values": weight[mask]}
        for key in forms.pruned(module):
            if (name := start + key) in state:
                weight = state.pop(name)
                whole = torch.ones_like(weight, dtype=torch.bool)
                state[f"{name}_orig"] = weight
                state[f"{name}_mask"] = masks.get(module_name, whole) if key == "weight" else whole
    return state


def _check_sizes(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """DistributedDataParallel has made its buffers for as many values as there were when it wrapped the model."""
    for name, layer in forms.layers(network).items():
        values = state.get(f"{name}.values".removeprefix("."))
        if isinstance(layer, SparseLayer) and values is not None and values.shape != layer.values.shape:
            raise InputError(
                f"its layer {name!r} has {layer.values.numel()} live weights, the ticket {values.numel()}, and "
                "DistributedDataParallel cannot change their number; load the ticket before you wrap the model"
            )
