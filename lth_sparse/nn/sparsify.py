"""sparsify and densify: swap a model's layers in place, from dense to sparse and back."""

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import custom_from_mask

from lth_sparse.backends import registry
from lth_sparse.nn.pruned_layers import masks_by_module, masks_found_in
from lth_sparse.nn.replacing import COUNTERPART, check_nothing_is_lost, take_over
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_linear import SparseLinear


def sparsify(model: nn.Module, masks: Mapping[str, Tensor] | None = None, backend: str = "auto") -> nn.Module:
    """Replace nn.Conv2d and nn.Linear layers by sparse ones, in place; the outputs stay the same.

    masks: {"layer.name": bool tensor of the weight's shape}; layers not named stay dense, and weights where a
    mask is False are dropped. None reads the masks of torch.nn.utils.prune, else the exact zeros of a weight;
    a layer with neither stays dense, and so does one whose weights are all 0 without such a mask: a warning names
    it, and whatever else looks pruned and stays dense, and says so where nothing is pruned. Sparse layers stay as they
    are: `set_masks` gives them other masks. Make the optimizer afterwards: the layers have new parameters.

    A layer's hooks, extra buffers and attributes come along, and handles still remove those hooks.

    Returns `model`, or, when `model` itself is the layer (named ""), the layer that replaces it.
    Raises ValueError or TypeError for a name or a mask that does not fit, for a weight tied to a layer
    that would not share it any longer, or for what a sparse layer would not have (hooks on a parameter,
    parametrizations, extra parameters and submodules), BackendError (a ValueError) for the backend; the model
    is then unchanged.
    """
    registry.resolve(backend)
    chosen, remarks = masks_found_in(model) if masks is None else (masks_by_module(model, masks), [])
    ties = _tied_parameters(model, chosen)
    for owners in ties:
        _, first, key = owners[0]
        same = all(torch.equal(chosen[first], chosen[module]) for _, module, _ in owners)
        if COUNTERPART[key] == "values" and not same:
            names = " and ".join(f'"{name}"' for name, _, _ in owners)
            raise ValueError(f"masks: got different ones for {names}, which share their weight")
    replacements: dict[nn.Module, nn.Module] = {}
    for module, mask in chosen.items():
        layer_class = SparseConv2d if isinstance(module, nn.Conv2d) else SparseLinear
        replacements[module] = layer_class.from_dense(module, mask, backend)  # type: ignore[arg-type]
    for remark in remarks:
        warnings.warn(f"sparsify: {remark}", stacklevel=2)
    return _swap(model, replacements, ties)


def densify(model: nn.Module, *, prune: bool = False) -> nn.Module:
    """Replace sparse layers by nn.Conv2d and nn.Linear with zeros for pruned weights, in place; same outputs.

    Hooks, extra buffers and attributes come along, as in `sparsify`. Returns `model`, or, when `model` itself is
    the layer, the layer that replaces it. Raises ValueError, the model unchanged, for what cannot come along.

    prune: put the layers under torch.nn.utils.prune with their masks, `weight_orig` and `weight_mask`; `sparsify`
    without masks makes the same sparse model of that again. Otherwise pruned weights are zeros that train.
    """
    chosen: dict[SparseConv2d | SparseLinear, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, SparseConv2d | SparseLinear):
            check_nothing_is_lost(module, _kind(module), _DENSE[_kind(module)], f'"{name}"')
            if prune and hasattr(module, "weight_mask"):
                raise ValueError(
                    f'"{name}": got an attribute "weight_mask", which torch.nn.utils.prune needs for itself: rename it'
                )
            chosen[module] = module.pattern.mask
    ties = _tied_parameters(model, chosen)
    replacements: dict[nn.Module, nn.Module] = {module: module.to_dense() for module in chosen}
    result = _swap(model, replacements, ties)
    if prune:
        for module, mask in chosen.items():
            dense = replacements[module]
            custom_from_mask(dense, "weight", mask)
            # Before the hooks of others, which may read the weight.
            hooks = dense._forward_pre_hooks
            assert isinstance(hooks, OrderedDict)
            hooks.move_to_end(next(reversed(hooks)), last=False)
    return result


_DENSE: dict[type[nn.Module], type[nn.Module]] = {SparseConv2d: nn.Conv2d, SparseLinear: nn.Linear}


def _kind(layer: nn.Module) -> type[nn.Module]:
    return next(kind for kind in (*_DENSE, *_DENSE.values()) if isinstance(layer, kind))


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
        shared = getattr(replacements[first], COUNTERPART[first_key])
        for _, other, key in others:
            setattr(replacements[other], COUNTERPART[key], shared)
    for old, new in replacements.items():
        take_over(old, _kind(old), new)
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if name and module in replacements:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replacements[module])
    return replacements.get(model, model)
