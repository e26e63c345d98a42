"""Which of PyTorch's variants of an optimizer trains, and that what it computes is the optimizer's own."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.lottery.optimizer import optimizer_of, sgd_is_faster_fused
from lth_sparse.nn import sparsify
from lth_sparse.nn.masks import prunable
from lth_sparse.settings.config import TrainingConfig

SGD = TrainingConfig(optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-2, iterations=1)


def network(name: str, memory_format: torch.memory_format) -> nn.Module:
    built = models.build(models.Network(name, (3, 32, 32), 10), seed=0)
    return built.to(memory_format=memory_format)


def fused(model: nn.Module) -> bool:
    return bool(optimizer_of(model, SGD).defaults["fused"])


def test_sgd_is_fused_where_most_numbers_are_contiguous() -> None:
    assert fused(network("vgg16", torch.contiguous_format))
    assert not fused(network("vgg16", torch.channels_last))
    assert fused(network("conv4", torch.channels_last)), "most of its weights are in linear layers"
    vgg16 = network("vgg16", torch.channels_last)
    masks = {name: torch.rand(weight.shape) < 0.1 for name, weight in prunable(vgg16).items()}
    assert fused(sparsify(vgg16, masks, "dense")), "live weights have one dimension"
    assert sgd_is_faster_fused([]), "no parameters are no reason against it"


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "sgd"}, {"optimizer": "sgd", "nesterov": True}, {"optimizer": "adam"}, {"optimizer": "adamw"}],
    ids=["sgd", "nesterov", "adam", "adamw"],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_variant_computes_what_float64_does_and_the_same_bits_again(
    options: dict[str, Any], memory_format: torch.memory_format, threads: int
) -> None:
    """Odd sizes, five steps, gradients in the memory format of their weights."""

    def trained(model: nn.Module) -> list[torch.Tensor]:
        made = optimizer_of(model, replace(SGD, **options, learning_rate=0.01))
        draws = torch.Generator().manual_seed(1)
        for _ in range(5):
            for weight in model.parameters():
                gradient = torch.randn(weight.shape, generator=draws)
                weight.grad = torch.empty_like(weight).copy_(gradient)
            made.step()
        return [weight.detach().double() for weight in model.parameters()]

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 33, 3), nn.Conv2d(33, 17, (3, 1)), nn.Linear(11, 7))
    layers = layers.to(memory_format=memory_format)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, again = trained(copy.deepcopy(layers)), trained(copy.deepcopy(layers))
        exact = trained(copy.deepcopy(layers).double())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    for one, other in zip(first, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
