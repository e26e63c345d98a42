"""A training that changes its masks all the time, and the memory of its process after each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lth_sparse as lth
from tests.memory import settled

RATE = 0.3
"""Of the live weights, what every second change prunes."""
SAMPLES = 4
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), 1e-4),
}


@dataclass(frozen=True)
class Layer:
    """What a layer of `network` is computed by when every layer has its own kernels, and how many weights live."""

    backend: str
    density: float


LAYERS = {
    "0": Layer("cpp", 0.3),
    "2": Layer("cpp", 0.1),
    "4": Layer("cpp/winograd", 0.9),
    "6": Layer("cpp/depthwise", 0.5),
    "9": Layer("cpp", 0.005),
    "11": Layer("dense", 0.1),
}
OWN = "each its own"
BACKENDS = (OWN, "auto")
"""Who computes the layers."""


def network() -> nn.Sequential:
    """Many weights for few products: what a layer keeps for a mask is much, and a step takes milliseconds."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 10),
    )  # fmt: skip


def masks(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Others for every seed, of the same densities."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (model.get_submodule(name).weight.shape, layer.density) for name, layer in LAYERS.items()}
    return {name: torch.rand(shape, generator=generator) < density for name, (shape, density) in shapes.items()}


def resident_while(backend: str, optimizer: str, steps: int, repackings: int) -> Iterator[float]:
    """Trains for `steps`, with other masks `repackings` times, alternately by lth.prune and by lth.set_masks, which
    lets as many weights live as at the beginning. Gives the mebibytes of this process, `SAMPLES` times for each."""
    torch.manual_seed(0)
    model = network()
    model = lth.sparsify(model, masks(model, 0), "auto" if backend == OWN else backend)
    if backend == OWN:
        for name, layer in LAYERS.items():
            model.get_submodule(name).backend = layer.backend
    trained_by = OPTIMIZERS[optimizer](model)
    batches = [(torch.randn(4, 3, 8, 8), torch.randint(10, (4,))) for _ in range(8)]
    changes = samples = 0
    for step in range(steps):
        images, labels = batches[step % len(batches)]
        trained_by.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        trained_by.step()
        if (step + 1) * repackings // steps > changes:
            changes += 1
            if changes % 2:
                lth.prune(model, RATE, optimizer=trained_by)
            else:
                lth.set_masks(model, masks(model, changes), trained_by)
        if (step + 1) * repackings * SAMPLES // steps > samples:
            samples += 1
            yield settled()
