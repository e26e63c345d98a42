"""A masked dense model and its sparse twin, and how the numbers of the one are found in the other."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import lth_sparse as lth


def network() -> nn.Module:
    """A convolution "0" and a linear layer "3", for images [N, 3, 6, 5]."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=(1, 2)), nn.Tanh(), nn.Flatten(), nn.Linear(72, 5))


def twins(model: nn.Module, backend: str = "auto") -> tuple[nn.Module, nn.Module]:
    """`model`, of which half of the weights are now 0, and a copy whose convolutions and linear layers are sparse."""
    masks = {
        name: torch.rand_like(layer.weight) < 0.5
        for name, layer in model.named_modules()
        if type(layer) in (nn.Conv2d, nn.Linear)
    }
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight.mul_(mask)
    return model, lth.sparsify(copy.deepcopy(model), masks, backend)


def live(tensors: dict[str, Tensor], sparse: nn.Module) -> dict[str, Tensor]:
    """What belongs to the parameters of a dense model, by the names and at the positions of its sparse twin's.

    The shape of each parameter stands at the end of its tensor's.
    """
    found = {}
    for name, tensor in tensors.items():
        layer = sparse.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, lth.SparseConv2d | lth.SparseLinear) and name.endswith("weight"):
            name, tensor = name.removesuffix("weight") + "values", tensor[..., layer.mask]
        found[name] = tensor
    return found
