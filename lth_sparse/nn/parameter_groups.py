"""parameter_groups: which parameters an optimizer decays, by the shapes that the dense model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lth_sparse.nn.sparse_layer import SparseLayer


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decays: Callable[[str, torch.Size], bool] = lambda name, shape: len(shape) >= 2,
) -> list[dict[str, Any]]:
    """Group parameters for an optimizer as those of the dense model: weights decay, biases and norms do not.

    A recipe that asks `parameter.ndim` takes `values`, which is [nnz], for a bias. Here `decays` is asked with the
    dense name and shape, of a sparse layer ("conv1.weight", [out, in / groups, height, width]).

    Returns two groups, either of which may be empty: the parameters that decay, by `weight_decay`, and the rest, by 0.
    A tied parameter is in one of them once, under its first name; a frozen one in neither.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for layer, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            shape = parameter.shape
            if isinstance(module, SparseLayer) and key == "values":
                key, shape = "weight", module.mask.shape
            (decaying if decays(f"{layer}.{key}" if layer else key, shape) else others).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
