"""Which layers of a model become sparse, and with which mask: those that masks name, or those found pruned."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lth_sparse.nn import forms
from lth_sparse.nn.attention import NEVER_CALLED, never_called
from lth_sparse.nn.given_masks import by_layer, name_inside
from lth_sparse.nn.masks import left_dense
from lth_sparse.nn.replacing import check_dense, check_weight_whole
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import SparseLayer, check_mask, effective
from lth_sparse.nn.sparse_linear import SparseLinear


def masks_found_in(model: nn.Module) -> tuple[dict[nn.Module, Tensor], list[str]]:
    """The mask of each layer that is pruned: that of torch.nn.utils.prune, else the zeros of its weight.

    Also sentences about what stays dense though it might be taken for pruned.
    """
    masks: dict[nn.Module, Tensor] = {}
    all_zero: list[str] = []
    left: list[str] = []
    uncalled = never_called(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            check_weight_whole(module, f'"{name}"')
        if type(module) in (nn.Conv2d, nn.Linear) and module not in uncalled:
            if module.weight.is_meta:
                check_layer(module, f'"{name}"')  # Which says so.
            pruned = _pruned_by_torch(module, "weight")
            mask: Tensor = getattr(module, "weight_mask" if pruned else "weight") != 0
            if mask.all() and not pruned:
                continue
            if pruned or mask.any():
                check_layer(module, f'"{name}"')
                masks[module] = mask
            else:
                all_zero.append(f'"{name}"')
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if _has_zeros(module):
                if parametrize.is_parametrized(module, "weight") and module not in uncalled:
                    check_layer(module, f'"{name}"')
                left.append(f'"{name}" ({NEVER_CALLED if module in uncalled else type(module).__name__})')
        else:
            keys = [key.removesuffix("_orig") for key in module._parameters if key.endswith("_orig")]
            left += [f'{key} of "{name}" ({type(module).__name__})' for key in keys if _pruned_by_torch(module, key)]
    remarks = []
    if all_zero:
        remarks.append(
            f"every weight of {' and '.join(all_zero)} is 0, which may be how it began and not how it was pruned: "
            "left dense; give masks if it is pruned"
        )
    if left:
        remarks.append(f"these look pruned and stay dense: {', '.join(left)}")
    if not masks and not remarks and not any(isinstance(module, SparseLayer) for module in model.modules()):
        name = name_inside(model)
        why = "no weight is exactly 0 or under torch.nn.utils.prune" if name else "it has no nn.Conv2d and no nn.Linear"
        what = f'; give masks, such as {{"{name}": bool tensor}}, or prune first (lth_sparse.prune)' if name else ""
        remarks.append(f"nothing is pruned, and the model stays as it is: {why}{what}")
    return masks, remarks


def masks_by_module(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[nn.Module, Tensor]:
    """The mask of each layer that `masks` names."""
    uncalled = never_called(model)
    chosen: dict[nn.Module, Tensor] = {}
    for name, mask in by_layer(masks, model).items():
        module = model.get_submodule(name)
        if isinstance(module, SparseLayer):
            raise TypeError(f'masks: got one for "{name}", which is sparse already: lth.set_masks(model, masks)')
        if not isinstance(module, nn.Conv2d | nn.Linear):
            kind, inside = type(module).__name__, name_inside(module, name)
            remedy = f': name its layers, such as "{inside}"' if inside else ""
            raise TypeError(f'masks: got one for "{name}", a {kind}, expected nn.Conv2d or nn.Linear{remedy}')
        if module in uncalled:
            raise TypeError(f'masks: got one for "{name}", but {NEVER_CALLED}, so it stays dense: leave it out')
        check_layer(module, f'"{name}"')
        check_mask(mask, effective(module, "weight"), f'masks["{name}"]')
        if module in chosen and not torch.equal(chosen[module], mask):
            raise ValueError(f'masks: got two different ones for "{name}", which has several names')
        chosen[module] = mask
    return chosen


def prunable_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear | SparseLayer]:
    """The layers that are sparse, or that `sparsify` would make so if it were given a mask, each by its first name.

    One that shares its weight with anything else, such as an embedding, is none of them.
    """
    left = {*left_dense(model)}
    weights = {f"{name}.weight".removeprefix("."): name for name in forms.layers(model)}
    for names in forms.tied(model):
        if not weights.keys() >= {*names}:
            left |= {weights[name] for name in names if name in weights}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | SparseLayer) and name not in left
    }


def check_layer(module: nn.Conv2d | nn.Linear, name: str = "module") -> None:
    """Refuse, under its name, a layer that no sparse one can replace."""
    if isinstance(module, nn.Conv2d):
        check_dense(module, nn.Conv2d, SparseConv2d, name)
    else:
        check_dense(module, nn.Linear, SparseLinear, name)
    if module.weight.is_meta:
        raise ValueError(f"{name}: got a weight on the meta device, expected one with numbers: load the model first")


def _pruned_by_torch(module: nn.Module, key: str) -> bool:
    """Whether torch.nn.utils.prune holds the weight of this name; not a bias, which no layer has sparse."""
    return f"{key}_orig" in module._parameters and getattr(module, f"{key}_mask", torch.empty(0)).dim() >= 2


def _has_zeros(module: nn.Conv2d | nn.Linear) -> bool:
    """Whether some of its weights are 0, but not all, or torch.nn.utils.prune holds it; it may be of any class."""
    if _pruned_by_torch(module, "weight"):
        return True
    with torch.no_grad():
        if parametrize.is_parametrized(module, "weight"):
            # By a copy: to compute it may be a step, as in spectral_norm.
            weight = copy.deepcopy(module.parametrizations["weight"]).eval()()  # type: ignore[union-attr, index]
        else:
            weight = module.weight
        if not isinstance(weight, Tensor) or is_lazy(weight) or not weight.is_floating_point() or weight.is_meta:
            return False
        live = weight != 0
    return bool(live.any()) and not live.all()
