"""sparsify and densify: swap a model's layers in place, from dense to sparse and back."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lth_sparse.backends import registry
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import check_mask, effective
from lth_sparse.nn.sparse_linear import SparseLinear
from lth_sparse.system.suggest import nearest

_COUNTERPART = {
    "weight": "values",
    "weight_orig": "values",
    "values": "weight",
    "bias": "bias",
    "bias_orig": "bias",
}


def sparsify(model: nn.Module, masks: Mapping[str, Tensor] | None = None, backend: str = "auto") -> nn.Module:
    """Replace nn.Conv2d and nn.Linear layers by sparse ones, in place; the outputs stay the same.

    masks: {"layer.name": bool tensor of the weight's shape}; layers not named stay dense, and weights where a
    mask is False are dropped. None reads the masks of torch.nn.utils.prune, else the exact zeros of a weight;
    a layer with neither stays dense. Make the optimizer afterwards: the layers have new parameters.

    Returns `model`, or, when `model` itself is the layer (named ""), the layer that replaces it.
    Raises ValueError or TypeError for a name or a mask that does not fit, or for a weight tied to a layer
    that would not share it any longer, BackendError (a ValueError) for the backend; the model is then
    unchanged.
    """
    registry.resolve(backend)
    chosen = _masks_found_in(model) if masks is None else _masks_by_module(model, masks)
    ties = _tied_parameters(model, chosen)
    for owners in ties:
        _, first, key = owners[0]
        same = all(torch.equal(chosen[first], chosen[module]) for _, module, _ in owners)
        if _COUNTERPART[key] == "values" and not same:
            names = " and ".join(f'"{name}"' for name, _, _ in owners)
            raise ValueError(f"masks: got different ones for {names}, which share their weight")
    replacements: dict[nn.Module, nn.Module] = {}
    for module, mask in chosen.items():
        layer_class = SparseConv2d if isinstance(module, nn.Conv2d) else SparseLinear
        replacements[module] = layer_class.from_dense(module, mask, backend)  # type: ignore[arg-type]
    return _swap(model, replacements, ties)


def densify(model: nn.Module) -> nn.Module:
    """Replace sparse layers by nn.Conv2d and nn.Linear with zeros for pruned weights, in place; same outputs.

    Returns `model`, or, when `model` itself is the layer, the layer that replaces it.
    """
    chosen = [module for module in model.modules() if isinstance(module, SparseConv2d | SparseLinear)]
    ties = _tied_parameters(model, chosen)
    return _swap(model, {module: module.to_dense() for module in chosen}, ties)


def _masks_found_in(model: nn.Module) -> dict[nn.Module, Tensor]:
    masks = {}
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            pruned = getattr(module, "weight_mask", None)
            mask = effective(module, "weight") != 0 if pruned is None else pruned != 0
            if pruned is not None or not mask.all():
                masks[module] = mask
    return masks


def _masks_by_module(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[nn.Module, Tensor]:
    # A module that is used in two places has two names, and may be given its mask under either.
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[nn.Module, Tensor] = {}
    for name, mask in masks.items():
        if name not in modules:
            raise ValueError(f'masks: got the unknown layer "{name}"{nearest(name, modules)}')
        module = modules[name]
        if type(module) not in (nn.Conv2d, nn.Linear):
            kind = type(module).__name__
            raise TypeError(f'masks: got one for "{name}", a {kind}, expected nn.Conv2d or nn.Linear')
        check_mask(mask, effective(module, "weight"), f'masks["{name}"]')
        if module in chosen and not torch.equal(chosen[module], mask):
            raise ValueError(f'masks: got two different ones for "{name}", which has several names')
        chosen[module] = mask
    return chosen


def _tied_parameters(model: nn.Module, chosen: Iterable[nn.Module]) -> list[list[tuple[str, nn.Module, str]]]:
    """The parameters that several chosen modules share: for each, a (layer, module, parameter name) list.

    Raises ValueError when a module that is not chosen shares one too: the swap would untie them unnoticed.
    """
    owners: dict[nn.Parameter, list[tuple[str, nn.Module, str]]] = defaultdict(list)
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            owners[parameter].append((name, module, key))
    replaced = set(chosen)
    ties = [group for group in owners.values() if len(group) > 1 and any(m in replaced for _, m, _ in group)]
    for group in ties:
        for name, module, key in group:
            if module not in replaced:
                other = next(n for n, m, _ in group if m in replaced)
                raise ValueError(f'"{other}" shares a parameter with "{name}" ({key}), which is not replaced')
    return ties


def _swap(
    model: nn.Module,
    replacements: Mapping[nn.Module, nn.Module],
    ties: list[list[tuple[str, nn.Module, str]]],
) -> nn.Module:
    for (_, first, first_key), *others in ties:
        shared = getattr(replacements[first], _COUNTERPART[first_key])
        for _, other, key in others:
            setattr(replacements[other], _COUNTERPART[key], shared)
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if name and module in replacements:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replacements[module])
    return replacements.get(model, model)
