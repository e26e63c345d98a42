"""The masks of a network that is trained: its pruned weights held at zero, and others in their place between steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_sparse.nn import set_masks
from lth_sparse.nn.masks import Masks, prunable


class HeldMasks:
    """Holds `model` to `masks`. Sparse layers have no pruned weights; in dense ones they are multiplied away."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.model = model
        self.masks = masks
        self._pruned: list[tuple[Tensor, Tensor]] = []
        self.take(masks)

    def take(self, masks: Masks) -> None:
        """From here on these are the masks, which sparse layers have already."""
        self.masks = masks
        # In the memory format of the weights: a product of two formats is slower.
        self._pruned = [
            (weight, torch.empty_like(weight, dtype=torch.bool).copy_(masks[name]))
            for name, weight in prunable(self.model).items()
            if not masks[name].all()
        ]

    @torch.no_grad()
    def apply(self) -> None:
        """After each step of the optimizer: pruned weights are exactly zero again."""
        for weight, mask in self._pruned:
            weight.mul_(mask)

    @torch.no_grad()
    def change(self, masks: Masks, optimizer: torch.optim.Optimizer) -> None:
        """Lets others live: those newly alive begin with 0, without momentum or moments; the rest keep theirs."""
        dense = prunable(self.model)
        for name, weight in dense.items():
            born = masks[name] & ~self.masks[name]
            for kept in optimizer.state.get(weight, {}).values():
                if isinstance(kept, Tensor) and kept.shape == weight.shape:
                    kept.masked_fill_(born, 0)
            weight.masked_fill_(~masks[name], 0)
        if sparse := {name: mask for name, mask in masks.items() if name not in dense}:
            set_masks(self.model, sparse, optimizer)
        self.take(masks)
