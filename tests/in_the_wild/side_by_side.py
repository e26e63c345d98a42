"""A sparse model and its masked dense twin: what is done to both has to come out equal on both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lth_sparse as lth

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""Of everything that this suite compares, in float32: several training steps of sums in another order."""


def network() -> nn.Sequential:
    """Four dimensions and two, a norm with statistics. No bias before it, whose gradient would be rounding alone."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 5),
    )


def draw_masks(model: nn.Module, density: float = 0.3) -> dict[str, Tensor]:
    """A mask for each layer that can have one, always the same."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(layer.weight.shape, generator=generator) < density
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def twins(
    make: Callable[[], nn.Module] = network, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> tuple[nn.Module, nn.Module]:
    """Sparse, and dense with pruned weights that are 0 and stay so, because a hook makes their gradients 0."""
    torch.manual_seed(0)
    dense = make().to(dtype)
    masks = draw_masks(dense)
    sparse = lth.sparsify(copy.deepcopy(dense), masks, backend)
    for name, mask in masks.items():
        weight = dense.get_submodule(name).weight
        with torch.no_grad():
            weight.mul_(mask)
        weight.register_hook(mask.mul)
    return sparse, dense


def batches(count: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Images [size, 3, 7, 7] and their labels, always the same."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        images = torch.randn(size, 3, 7, 7, generator=generator, dtype=torch.float64)
        yield images.to(dtype), torch.randint(5, (size,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> list[Tensor]:
    """The losses of a few steps; `options` are those of `batches`."""
    losses = []
    for images, labels in batches(**options):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """With momentum and decay, so that the optimizer has a state of its own."""
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the dense model has; a sparse model stays as it is."""
    return lth.densify(copy.deepcopy(model)).state_dict()


def assert_twins(sparse: nn.Module, dense: nn.Module) -> None:
    """The same weights, statistics and outputs."""
    assert any(isinstance(layer, lth.SparseConv2d | lth.SparseLinear) for layer in sparse.modules())
    assert_equal(dense_state(sparse), dense.state_dict())


def assert_equal(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def assert_same_updates(sparse: nn.Module, dense: nn.Module, before: dict[str, Tensor], dtype: torch.dtype) -> None:
    """What mixed precision made of each weight that was `before`: the same but for the rounding of `dtype`."""
    for name, ours in dense_state(sparse).items():
        theirs, start = dense.state_dict()[name], before[name]
        error = torch.linalg.vector_norm((ours - theirs).double())
        assert error <= 8 * torch.finfo(dtype).eps * torch.linalg.vector_norm((theirs - start).double()), name
