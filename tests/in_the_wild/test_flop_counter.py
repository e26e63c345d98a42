"""FlopCounterMode counts what a sparse model computes: two operations a live weight and position of the output."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lth_sparse as lth
from tests.in_the_wild.twins import network, twins

X = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def counted(model, x, backward=False):
    with FlopCounterMode(display=False) as counter:
        output = model(x)
        if backward:
            output.sum().backward()
    return counter


POSITIONS = {"0": 2 * 6 * 3, "3": 2}
"""Images times positions of a channel's output."""


@pytest.mark.parametrize("backend", ["auto", "dense"])
@pytest.mark.parametrize("recording", [True, False])
def test_a_forward_pass(backend, recording):
    _, sparse = twins(network(), backend)
    with torch.set_grad_enabled(recording):
        counter = counted(sparse, X)
    for name, positions in POSITIONS.items():
        layer = sparse.get_submodule(name)
        found = counter.get_flop_counts()[f"Sequential.{name}"]
        assert sum(found.values()) == 2 * layer.values.numel() * positions
    assert counter.get_total_flops() == sum(
        2 * sparse.get_submodule(n).values.numel() * p for n, p in POSITIONS.items()
    )


def test_a_training_step_costs_three_forward_passes_where_the_input_has_a_gradient():
    _, sparse = twins(network())
    once = counted(sparse, X).get_total_flops()
    assert counted(sparse, X.clone().requires_grad_(), backward=True).get_total_flops() == 3 * once
    of_images = 2 * sparse[0].values.numel() * POSITIONS["0"]
    assert counted(sparse, X, backward=True).get_total_flops() == 3 * once - of_images


@pytest.mark.parametrize("backward", [True, False])
def test_with_nothing_pruned_it_is_the_count_of_the_dense_model(backward):
    dense = nn.Sequential(nn.Conv2d(3, 4, (3, 2), 2, padding=(1, 0), dilation=(1, 2)), nn.Flatten(), nn.Linear(24, 5))
    masks = {name: torch.ones_like(dense.get_submodule(name).weight, dtype=torch.bool) for name in ("0", "2")}
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    images = X.clone().requires_grad_()
    expected = counted(dense, images, backward).get_total_flops()
    assert counted(sparse, images, backward).get_total_flops() == expected > 0


def test_rows_of_more_dimensions_and_groups():
    layer = lth.SparseLinear(8, 5, mask=torch.rand(5, 8) < 0.5)
    assert counted(layer, torch.randn(2, 3, 8)).get_total_flops() == 2 * layer.values.numel() * 6
    layer = lth.SparseConv2d(4, 6, 3, groups=2, mask=torch.rand(6, 2, 3, 3) < 0.5)
    assert counted(layer, torch.randn(4, 5, 7)).get_total_flops() == 2 * layer.values.numel() * 15


def test_an_empty_batch_costs_nothing():
    _, sparse = twins(network())
    assert counted(sparse, X[:0]).get_total_flops() == 0


def test_transforms_of_torch_func_are_counted():
    _, sparse = twins(network())
    images = torch.stack([X, X, X])
    assert counted(torch.vmap(sparse), images).get_total_flops() == 3 * counted(sparse, X).get_total_flops()
