"""Fifty steps of training: every backend follows masked dense PyTorch as closely as rounding allows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lth_sparse.backends import registry
from lth_sparse.data import load
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.training import Training
from lth_sparse.nn import sparsify
from lth_sparse.nn.masks import Masks, apply, prunable
from lth_sparse.settings.config import DataConfig, TrainingConfig

OTHERS = [name for name, reason in registry.backends().items() if not reason and name != "dense"]
STEPS = 50
DENSITY = 0.1
FACTOR = 4.0
"""Over the yardstick, which is a maximum over few runs."""
SGD = TrainingConfig(
    optimizer="sgd", learning_rate=0.1, momentum=0.9, batch_size=32, iterations=STEPS, evaluate_every=1
)  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """8x8 images, one channel."""
    return load(DataConfig("digits"), seed=0)


def network() -> nn.Module:
    """A layer of each kind, smooth throughout: at the corner of a ReLU, the last bit decides between two trainings that
    no rounding error explains."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Tanh(),
        nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64), nn.Tanh(), nn.Conv2d(64, 64, 3, groups=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(256, 64), nn.Tanh(), nn.Linear(64, 10),
    )  # fmt: skip


class InFloat64(nn.Module):
    """The same network on the same images; all that differs is the arithmetic."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.model(images.double())
        return output


def moved_by_a_last_bit(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are each the next number up or down."""
    generator = torch.Generator().manual_seed(seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for weight in moved.parameters():
            towards = torch.randint(0, 2, weight.shape, generator=generator) * 2.0 - 1.0
            weight.copy_(torch.where(weight == 0, weight, weight.nextafter(torch.inf * towards)))
    return moved


def losses(model: nn.Module, masks: Masks, data: Dataset) -> Tensor:
    """The loss of each step on its batch, float64 [STEPS]."""
    training = Training(model, masks, data, Batches(data, SGD.batch_size, "none", 0), SGD, (1, "ticket"))
    training.run(lambda: None, lambda: None)
    return torch.tensor([point.train_loss for point in training.curve], dtype=torch.float64)


@pytest.fixture(scope="module")
def start() -> tuple[nn.Module, Masks]:
    """The pruned network."""
    torch.manual_seed(0)
    model = network()
    masks = {layer: torch.rand(weight.shape) < DENSITY for layer, weight in prunable(model).items()}
    apply(model, masks)
    with torch.no_grad():
        for weight in prunable(model).values():
            weight.div_(DENSITY**0.5)  # The signal passes as through the whole network, so that it learns.
    return model, masks


@pytest.fixture(scope="module")
def dense(start: tuple[nn.Module, Masks], digits: Dataset) -> Tensor:
    """The trajectory of masked dense PyTorch."""
    found = losses(copy.deepcopy(start[0]), start[1], digits)
    assert found[-1] < 0.5 * found[0], "the network is to learn"
    return found


@pytest.fixture(scope="module")
def rounding_growth(start: tuple[nn.Module, Masks], dense: Tensor, digits: Dataset) -> Tensor:
    """How far apart rounding alone puts two trainings by each step: from float64, and from weights a last bit away."""
    model, masks = start
    double = losses(InFloat64(copy.deepcopy(model)), {f"model.{name}": mask for name, mask in masks.items()}, digits)
    others = [double, *[losses(moved_by_a_last_bit(model, seed), masks, digits) for seed in range(3)]]
    return torch.stack([(other - dense).abs() for other in others]).amax(dim=0).cummax(dim=0).values


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.long if name == "triton" else ()) for name in OTHERS]
)
def test_the_loss_follows_masked_dense_to_rounding_growth(
    start: tuple[nn.Module, Masks], dense: Tensor, rounding_growth: Tensor, digits: Dataset, backend: str
) -> None:
    model, masks = start
    ours = losses(sparsify(copy.deepcopy(model), masks, backend), masks, digits)
    # What is read is a float32, which may round to its neighbour.
    allowed = FACTOR * rounding_growth + torch.finfo(torch.float32).eps * dense
    assert ((ours - dense).abs() <= allowed).all()
