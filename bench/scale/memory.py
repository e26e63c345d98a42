"""Bytes of a network in training: worked out of its layers, and counted where they lie."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import lth_sparse as lth
from bench.contests.memory import resident
from lth_sparse.nn.masks import prunable
from lth_sparse.nn.sparse_layer import SparseLayer

NUMBER = 4
"""Bytes of a float32, and of an index."""
CLASSES = 1000
SMALL = 64
"""Pixels along the side of the images that give a network its gradients: their size does not change these."""


@dataclass(frozen=True)
class Bytes:
    """Of a network in training, without activations.

    values: parameters, in a sparse layer its live weights. gradients: as large. momentum: of SGD. moments: of Adam.
    masks: a byte for each weight, live or not. plans: indices of the cpp backend. statistics: BatchNorm's.
    """

    values: int
    gradients: int
    momentum: int
    moments: int
    masks: int
    plans: int
    statistics: int

    def by(self, optimizer: str) -> int:
        """All of it under "SGD" (with momentum) or "Adam"."""
        return sum(asdict(self).values()) - (self.moments if optimizer == "SGD" else self.momentum)


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), 1e-3),
}


def network(name: str, density: float | None) -> nn.Module:
    """torchvision's `name`, its weights random, in training; None is dense, else every convolution and linear layer
    is sparse, each with random masks of this density."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    if density is None:
        return model
    masks = {layer: torch.rand(weight.shape) < density for layer, weight in prunable(model).items()}
    return lth.sparsify(model, masks, "cpp")


def worked_out(model: nn.Module) -> Bytes:
    """By formula: 4 bytes a number; for a sparse layer 12 bytes of plan a live weight, and 4 for each row of its two
    matrices and one more: the output channels, and the input channels once for each phase of the stride."""
    values = NUMBER * sum(each.numel() for each in model.parameters())
    masks = plans = 0
    for layer in model.modules():
        if isinstance(layer, SparseLayer):
            spec = layer.spec
            rows = spec.out_channels + spec.stride[0] * spec.stride[1] * spec.in_channels
            masks += layer.mask.numel()
            plans += 3 * NUMBER * layer.values.numel() + NUMBER * (rows + 2)
    statistics = sum(
        NUMBER * (norm.running_mean.numel() + norm.running_var.numel()) + 8
        for norm in model.modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    )
    return Bytes(values, values, values, 2 * values, masks, plans, statistics)


def held() -> int:
    """Bytes of the storages of all tensors that Python knows here."""
    gc.collect()
    storages: dict[int, int] = {}
    for each in gc.get_objects():
        if issubclass(type(each), Tensor) and each.layout == torch.strided and each.device.type == "cpu":
            storage = each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def settled() -> float:
    """Bytes of this process in memory, once the C library has given back what is free. Linux alone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return 2**20 * resident("VmRSS")


def trained(make: Callable[[], nn.Module], optimizer: str) -> tuple[int, float]:
    """By how much `held` and `settled` grow by such a network after two steps of training."""
    torch.set_num_threads(1)
    make()(torch.randn(2, 3, SMALL, SMALL)).sum().backward()  # What is loaded and kept for any network.
    images = torch.randn(2, 3, SMALL, SMALL)
    before = held(), settled()
    model = make()
    trained_by = OPTIMIZERS[optimizer](model)
    for _ in range(2):
        trained_by.zero_grad()
        model(images).square().mean().backward()
        trained_by.step()
    return held() - before[0], settled() - before[1]


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """`work` of these, in a process of its own, whose memory is nobody else's."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _trained(name: str, density: float | None, optimizer: str) -> tuple[int, float]:
    return trained(lambda: network(name, density), optimizer)


def measured(name: str, density: float | None, optimizer: str) -> tuple[int, float]:
    """`trained` of torchvision's `name`, in a process of its own."""
    found: tuple[int, float] = in_a_process(_trained, name, density, optimizer)
    return found


@contextmanager
def kept_activations(model: nn.Module) -> Iterator[dict[int, tuple[Tensor, int]]]:
    """Inside, by hooks, what the layers that are called have to keep: storage -> one of its tensors, and bytes.

    The input of a convolution, a linear layer and a BatchNorm, the output of a ReLU, the input of a max-pool and 8
    bytes for each of its outputs; what several keep counts once.
    """
    found: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> None:
        found[tensor.untyped_storage().data_ptr()] = tensor, tensor.numel() * tensor.element_size()

    def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.ReLU):
            keep(output)
        elif isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.MaxPool2d | SparseLayer):
            keep(given[0])
        if isinstance(module, nn.MaxPool2d):
            found[-1] = output, 8 * output.numel()

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def activations(model: nn.Module, size: int, batch: int) -> tuple[int, int]:
    """Bytes for each image of this size that a forward pass keeps for the backward pass: by `kept_activations`, and
    those of all tensors that autograd saved, parameters and buffers left out."""
    images = torch.randn(batch, 3, size, size)
    with kept_activations(model) as found:
        model(images)
        by_layers = sum(count for _, count in found.values())
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    saved: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return by_layers // batch, sum(count for _, count in saved.values()) // batch
