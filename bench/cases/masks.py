"""Which weights are pruned in what is timed or modelled: at random, or as in a real ticket."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.cases.gpu import SPARSITIES, GpuLayer
from bench.cases.tickets import tickets
from lth_sparse.nn.masks import Masks, prunable


def random_masks(layers: Sequence[GpuLayer]) -> dict[float, dict[str, Tensor]]:
    """Sparsity -> layer -> a mask that keeps each weight with the same chance."""
    generator = torch.Generator().manual_seed(0)
    chances = {layer.name: torch.rand(layer.spec.weight_shape, generator=generator) for layer in layers}
    return {sparsity: {name: chance >= sparsity for name, chance in chances.items()} for sparsity in SPARSITIES}


def ticket_masks(layers: Sequence[GpuLayer], device: torch.device, image_size: int) -> dict[float, dict[str, Tensor]]:
    """Sparsity -> layer -> the mask of a real ticket, for the layers that have one."""
    return {
        sparsity: {layer.name: masks[layer.ticket_layer] for layer in layers if layer.ticket_layer is not None}
        for sparsity, masks in tickets(SPARSITIES, device, image_size).items()
    }


def network_masks(model: nn.Module, sparsity: float) -> Masks:
    """Masks that keep each weight with the same chance, in every layer."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(weight.shape, generator=generator) >= sparsity for name, weight in prunable(model).items()}
