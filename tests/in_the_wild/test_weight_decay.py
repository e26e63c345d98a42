"""Recipes that decay weights and spare biases and norms, as timm's and most others do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lth_sparse as lth

DECAY = 0.3
"""Large, so that ten steps show where it is missing."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # before a norm, where a bias has no gradient but rounding
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.LayerNorm(32),
        nn.Linear(32, 5),
    ).double()


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(module.weight.shape, generator=generator) < 0.3
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def by_ndim(model: nn.Module) -> list[dict]:
    """The rule of timm's param_groups_weight_decay, in its words."""
    decay, no_decay = [], []
    for name, parameter in model.named_parameters():
        (no_decay if parameter.ndim <= 1 or name.endswith(".bias") else decay).append(parameter)
    return [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": DECAY}]


def trained(model: nn.Module, groups: list[dict], masks: dict[str, torch.Tensor]) -> nn.Module:
    """Ten steps of AdamW; `masks` hold the pruned weights of a dense model, and their gradients, at zero."""
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        images = torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(5, (6,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        for name, mask in masks.items():
            model.get_submodule(name).weight.grad.mul_(mask)
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_submodule(name).weight.mul_(mask)
    return model


def masked_dense() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = network()
    masks = masks_of(model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight.mul_(mask)
    return model, masks


def assert_same(sparse: nn.Module, dense: nn.Module) -> None:
    torch.testing.assert_close(lth.densify(sparse).state_dict(), dense.state_dict(), rtol=1e-9, atol=1e-12)


def test_it_trains_as_the_masked_dense_model_does():
    dense, masks = masked_dense()
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    trained(dense, by_ndim(dense), masks)
    trained(sparse, lth.parameter_groups(sparse, DECAY), {})
    assert_same(sparse, dense)


def test_the_recipe_that_asks_for_ndim_does_not():
    dense, masks = masked_dense()
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    trained(dense, by_ndim(dense), masks)
    trained(sparse, by_ndim(sparse), {})
    with pytest.raises(AssertionError, match="not close"):
        assert_same(sparse, dense)


def test_timms_own_groups_hold_the_same_parameters():
    optim = pytest.importorskip("timm.optim", reason="timm is not installed")
    model = network()
    no_decay, decay = optim.param_groups_weight_decay(model, DECAY)
    ours = lth.parameter_groups(model, DECAY)
    assert [id(p) for p in ours[0]["params"]] == [id(p) for p in decay["params"]]
    assert [id(p) for p in ours[1]["params"]] == [id(p) for p in no_decay["params"]]
    assert (ours[0]["weight_decay"], ours[1]["weight_decay"]) == (decay["weight_decay"], no_decay["weight_decay"])

    names = {p: name for name, p in model.named_parameters()}
    dense_names = {names[p] for p in decay["params"]}
    sparse = lth.sparsify(model, masks_of(model))
    assert not any(group["weight_decay"] for group in optim.param_groups_weight_decay(sparse, DECAY))
    names = {p: name.replace("values", "weight") for name, p in sparse.named_parameters()}
    assert {names[p] for p in lth.parameter_groups(sparse, DECAY)[0]["params"]} == dense_names


def test_timms_groups_train_the_dense_model_as_ours_train_the_sparse_one():
    optim = pytest.importorskip("timm.optim", reason="timm is not installed")
    dense, masks = masked_dense()
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    trained(dense, optim.param_groups_weight_decay(dense, DECAY), masks)
    trained(sparse, lth.parameter_groups(sparse, DECAY), {})
    assert_same(sparse, dense)


def test_a_rule_sees_dense_names_and_shapes():
    model = network()
    dense = {name: p.shape for name, p in model.named_parameters()}
    seen = {}
    decaying, others = lth.parameter_groups(
        lth.sparsify(model, masks_of(model)), DECAY, decays=lambda name, shape: bool(seen.update({name: shape}))
    )
    assert seen == dense
    assert decaying["params"] == []
    assert len(others["params"]) == len(dense)


def test_a_model_that_is_one_layer_has_names_without_a_dot():
    layer = lth.SparseLinear(4, 3, mask=torch.eye(3, 4).bool())
    decaying, others = lth.parameter_groups(layer, DECAY, decays=lambda name, shape: name == "weight")
    assert decaying["params"] == [layer.values]
    assert others["params"] == [layer.bias]


def test_tied_parameters_are_there_once_and_frozen_ones_not_at_all():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    mask = torch.eye(4).bool()
    lth.sparsify(model, {"0": mask, "1": mask, "2": mask})
    decaying, others = lth.parameter_groups(model, DECAY)
    assert [id(p) for p in decaying["params"]] == [id(model[0].values)]
    assert [id(p) for p in others["params"]] == [id(model[0].bias), id(model[1].bias)]
