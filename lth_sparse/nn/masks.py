"""The masks of a network: which of its weights can be pruned, and which are alive."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lth_sparse.nn.attention import NEVER_CALLED, never_called

Masks = dict[str, Tensor]
"""Name of a layer -> bool, the shape of its weight; True where the weight is alive."""


def _layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    left = left_dense(model)
    found = model.named_modules()
    return {name: each for name, each in found if isinstance(each, nn.Conv2d | nn.Linear) and name not in left}


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that pruning may touch, by the name of their layer: those of convolutions and linear layers."""
    return {name: layer.weight for name, layer in _layers(model).items()}


def left_dense(model: nn.Module) -> dict[str, str]:
    """Name of each convolution or linear layer that pruning leaves alone -> why."""
    uncalled = never_called(model)
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if module in uncalled:
            reasons[name] = NEVER_CALLED
        elif isinstance(module, nn.Conv2d | nn.Linear) and type(module) not in (nn.Conv2d, nn.Linear):
            of = type(module)
            reasons[name] = f"a {of.__module__}.{of.__qualname__} may compute something else than its base class"
    return reasons


def weight_name(layer: str) -> str:
    """The name in a state dict of the weight of `layer`; a model that is itself the layer is called ""."""
    return f"{layer}.weight" if layer else "weight"


def kinds(model: nn.Module) -> dict[str, str]:
    """Name of each prunable layer -> "conv", "fc", or "output" for the last linear layer."""
    found = {name: "conv" if isinstance(layer, nn.Conv2d) else "fc" for name, layer in _layers(model).items()}
    linear = [name for name, kind in found.items() if kind == "fc"]
    if linear:
        found[linear[-1]] = "output"
    return found


def all_alive(model: nn.Module) -> Masks:
    """Masks that prune nothing."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()}


def apply(model: nn.Module, masks: Masks) -> None:
    """Sets the pruned weights of `model` to exactly (positive) zero, in place."""
    with torch.no_grad():
        for name, weight in prunable(model).items():
            if name in masks:
                weight.masked_fill_(~masks[name], 0)


def live(masks: Mapping[str, Tensor]) -> int:
    """Number of live weights."""
    return sum(int(mask.sum()) for mask in masks.values())


def density(masks: Mapping[str, Tensor]) -> float:
    """Live weights over all weights of the masked layers."""
    return live(masks) / sum(mask.numel() for mask in masks.values())
