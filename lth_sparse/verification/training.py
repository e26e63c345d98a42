"""A training step as a researcher writes it, and the losses that it goes through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.lottery.optimizer import sgd_is_faster_fused
from lth_sparse.nn.masks import Masks, prunable
from lth_sparse.system.seeding import generator


def loss_of(output: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy where `targets` are classes (int64 [N]), else the mean square from them; at least in float32."""
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if targets.dtype == torch.int64:
        return functional.cross_entropy(output, targets)
    return functional.mse_loss(output, targets.to(output.dtype))


def targets_for(output: Tensor, seed: int) -> Tensor:
    """Random classes for an output [N, classes], random numbers of its shape for any other."""
    if output.dim() == 2 and output.shape[1] > 1:
        return torch.randint(0, output.shape[1], output.shape[:1], generator=generator(seed, "targets")).to(
            output.device
        )
    return torch.randn(output.shape, generator=generator(seed, "targets")).to(output)


def training_step(model: nn.Module, images: Tensor, targets: Tensor, masks: Masks) -> Callable[[], Tensor]:
    """SGD with momentum; dense layers that `masks` name are masked after it. A call gives the loss before it, []."""
    fused = images.device.type == "cpu" and sgd_is_faster_fused(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=fused or None)
    # In the layout of the weights: a product of two layouts is slower.
    pruned = [
        (weight, torch.empty_like(weight, dtype=torch.bool).copy_(masks[name]))
        for name, weight in prunable(model).items()
        if name in masks
    ]

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(images), targets)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight, mask in pruned:
                weight *= mask
        return loss.detach()

    return step


def losses(step: Callable[[], Tensor], steps: int) -> Tensor:
    """Of so many steps, float64 [steps] on the CPU."""
    return torch.stack([step() for _ in range(steps)]).double().cpu()
