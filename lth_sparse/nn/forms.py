"""The forms in which a model holds weights: dense, under torch.nn.utils.prune, sparse; tied, and inside a wrapper."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from lth_sparse.nn.masks import Masks, weight_name
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.system.errors import InputError
from lth_sparse.system.sharding import GATHER, is_sharded


def unwrap(model: nn.Module) -> tuple[nn.Module, str]:
    """The network inside DataParallel, DistributedDataParallel and torch.compile, and what they put before names."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got a {type(model).__name__}, expected a torch.nn.Module")
    if is_sharded(model):
        raise InputError(f"model: got one that FSDP has sharded, expected a whole one: {GATHER}")
    prefix = ""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            child = "module"
        elif "_orig_mod" in model._modules:  # Importing torch.compile's class to ask for it takes seconds.
            child = "_orig_mod"
        else:
            return model, prefix
        model, prefix = model.get_submodule(child), f"{prefix}{child}."


def layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear | SparseLayer]:
    """The layers whose weight can have a mask, by all their names: a layer that is used twice has two."""
    found = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in found if isinstance(module, nn.Conv2d | nn.Linear | SparseLayer)}


def pruned(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The parameters of this module that are under torch.nn.utils.prune: {name: (original, mask)}."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for key, original in module._parameters.items():
        name = key.removesuffix("_orig")
        mask = module._buffers.get(f"{name}_mask")
        # A layer of another library may have tensors of these names beside a weight that is a parameter.
        if name != key and original is not None and mask is not None and name not in module._parameters:
            found[name] = original, mask
    return found


def weight_shape(layer: nn.Conv2d | nn.Linear | SparseLayer) -> tuple[int, ...]:
    """The dense weight's."""
    return tuple(layer.mask.shape if isinstance(layer, SparseLayer) else layer.weight.shape)


def own_masks(model: nn.Module) -> Masks:
    """The masks that the model itself holds: those of sparse layers and of torch.nn.utils.prune."""
    masks: Masks = {}
    for name, layer in layers(model).items():
        if isinstance(layer, SparseLayer):
            masks[name] = layer.mask
        elif "weight" in (held := pruned(layer)):
            masks[name] = held["weight"][1] != 0
    return masks


def tied(model: nn.Module) -> list[list[str]]:
    """The names, as a dense model has them, of each parameter and buffer that has several."""
    names: dict[int, list[str]] = defaultdict(list)
    for module_name, module in model.named_modules(remove_duplicate=False):
        called = {f"{key}_orig": key for key in pruned(module)}
        if isinstance(module, SparseLayer):
            called["values"] = "weight"
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                names[id(tensor)].append(f"{module_name}.{called.get(key, key)}".removeprefix("."))
    return [group for group in names.values() if len(group) > 1]


def shared_by_ties(model: nn.Module, masks: Masks) -> Masks:
    """The same masks, of layers that share their weight the first one's, under each of their names."""
    network, _ = unwrap(model)
    layer_of = {weight_name(name): name for name in layers(network)}
    found = dict(masks)
    for names in tied(network):
        sharing = [layer_of[name] for name in names if name in layer_of]
        mask = next((masks[name] for name in sharing if name in masks), None)
        found |= {} if mask is None else dict.fromkeys(sharing, mask)
    return found


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that `model` would have with dense layers: pruned weights 0, no masks.

    What is the same in both shares the model's memory.
    """
    network, _ = unwrap(model)
    state: dict[str, Tensor] = dict(network.state_dict())
    for name, module in network.named_modules(remove_duplicate=False):
        start = f"{name}." if name else ""
        if isinstance(module, SparseLayer):
            del state[f"{start}values"], state[f"{start}mask"]
            state[f"{start}weight"] = module.weight.detach().as_subclass(Tensor)
        for key, (original, mask) in pruned(module).items():
            del state[f"{start}{key}_orig"], state[f"{start}{key}_mask"]
            state[start + key] = (original * mask).detach().masked_fill(mask == 0, 0)  # And not -0.
    return state
