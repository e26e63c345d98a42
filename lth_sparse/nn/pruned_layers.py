"""Which layers of a model become sparse, and with which mask: those that masks name, or those found pruned."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lth_sparse.nn.replacing import check_dense
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import check_mask, effective
from lth_sparse.nn.sparse_linear import SparseLinear
from lth_sparse.system.suggest import nearest


def masks_found_in(model: nn.Module) -> dict[nn.Module, Tensor]:
    """The mask of each layer that is pruned: that of torch.nn.utils.prune, else the zeros of its weight."""
    masks: dict[nn.Module, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if parametrize.is_parametrized(module, "weight"):
            if (_parametrized_weight(module) == 0).any():
                check_layer(module, f'"{name}"')
        elif type(module) in (nn.Conv2d, nn.Linear):
            pruned = "weight_orig" in module._parameters and "weight_mask" in module._buffers
            mask: Tensor = (module.get_buffer("weight_mask") if pruned else module.weight) != 0
            if pruned or not mask.all():
                check_layer(module, f'"{name}"')
                masks[module] = mask
    return masks


def masks_by_module(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[nn.Module, Tensor]:
    """The mask of each layer that `masks` names."""
    # A module that is used in two places has two names, and may be given its mask under either.
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[nn.Module, Tensor] = {}
    for name, mask in masks.items():
        if name not in modules:
            raise ValueError(f'masks: got the unknown layer "{name}"{nearest(name, modules)}')
        module = modules[name]
        if not isinstance(module, nn.Conv2d | nn.Linear):
            kind = type(module).__name__
            raise TypeError(f'masks: got one for "{name}", a {kind}, expected nn.Conv2d or nn.Linear')
        check_layer(module, f'"{name}"')
        check_mask(mask, effective(module, "weight"), f'masks["{name}"]')
        if module in chosen and not torch.equal(chosen[module], mask):
            raise ValueError(f'masks: got two different ones for "{name}", which has several names')
        chosen[module] = mask
    return chosen


def check_layer(module: nn.Conv2d | nn.Linear, name: str = "module") -> None:
    """Refuse, under its name, a layer that no sparse one can replace."""
    if isinstance(module, nn.Conv2d):
        check_dense(module, nn.Conv2d, SparseConv2d, name)
    else:
        check_dense(module, nn.Linear, SparseLinear, name)


def _parametrized_weight(module: nn.Module) -> Tensor:
    """The weight as a parametrization gives it; by a copy, for to compute it may be a step, as in spectral_norm."""
    with torch.no_grad():
        weight: Tensor = copy.deepcopy(module).eval().weight  # type: ignore[assignment]
    return weight
