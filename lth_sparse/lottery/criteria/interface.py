"""What a criterion is given, and what one by name is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.system.errors import InputError

Scores = Mapping[str, Tensor]
NO_SLOPE = (
    "criterion: the loss depends on no weight of the model that it was given, expected loss(model) to call that very "
    "model"
)


@dataclass(frozen=True)
class Evidence:
    """What a criterion may ask for beside the weights.

    `loss(model)`: the loss of a model on a batch, a scalar that can be differentiated twice by its weights. `example`:
    an input of the model, of any batch. `seed`: of what it leaves to chance.
    """

    loss: Callable[[nn.Module], Tensor] | None = None
    example: Tensor | None = None
    seed: int = 0


@dataclass(frozen=True)
class Registered:
    """A criterion by name.

    `scores(model, masks, evidence)`: of every weight of the layers in `masks`; the model is dense, a copy, pruned
    weights at zero. `needs`: what of `Evidence` it cannot do without. `steps`: in how many it prunes, scoring anew.
    `densities`: what it makes of the density of each layer, where it has a say in that.
    """

    scores: Callable[[nn.Module, Masks, Evidence], Scores]
    needs: frozenset[str] = frozenset()
    steps: int = 1
    densities: Callable[[Masks, Mapping[str, float]], Mapping[str, float]] | None = None


def weights_of(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The weights of the layers in `masks`, as they stand in a dense `model`, frozen or not."""
    prunable = masking.prunable(model)
    return {name: prunable[name].requires_grad_() for name in masks}


def slopes_of(value: Tensor, weights: Mapping[str, Tensor], *, again: bool = False) -> dict[str, Tensor]:
    """The derivative of `value` by each of the `weights`, 0 where it does not depend on it; `again`: to be
    differentiated itself."""
    if not value.requires_grad:
        raise InputError(NO_SLOPE)
    found = torch.autograd.grad(value, list(weights.values()), create_graph=again, allow_unused=True)
    if all(slope is None for slope in found):
        raise InputError(NO_SLOPE)
    return {
        name: torch.zeros_like(weight) if slope is None else slope
        for (name, weight), slope in zip(weights.items(), found, strict=True)
    }
