"""Recipes that decay weights and spare biases and norms, as most do. timm's own are in test_timm.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_twins, draw_masks, network, train, twins

DECAY = 0.3
"""Large, so that a few steps show where it is missing."""


def by_ndim(model: nn.Module) -> list[dict]:
    """The rule of timm's param_groups_weight_decay, in its words."""
    decay, no_decay = [], []
    for name, parameter in model.named_parameters():
        (no_decay if parameter.ndim <= 1 or name.endswith(".bias") else decay).append(parameter)
    return [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": DECAY}]


def trained(groups_of_ours):
    """Twins, the dense one trained by the recipe, the sparse one by the groups that are given."""
    sparse, dense = twins(dtype=torch.float64)
    for model, groups in ((dense, by_ndim(dense)), (sparse, groups_of_ours(sparse))):
        train(model, torch.optim.AdamW(groups, lr=0.01), dtype=torch.float64)
    return sparse, dense


def test_it_trains_as_the_masked_dense_model_does():
    assert_twins(*trained(lambda model: lth.parameter_groups(model, DECAY)))


def by_name(model: nn.Module) -> list[dict]:
    """Another rule that recipes have; of this dense model's parameters, that of the norm decays too."""
    decay = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    return [{"params": decay, "weight_decay": DECAY}]


@pytest.mark.parametrize("recipe", [by_ndim, by_name])
def test_recipes_that_ask_for_ndim_or_names_do_not(recipe):
    with pytest.raises(AssertionError, match="not close"):
        assert_twins(*trained(recipe))


def test_a_rule_sees_dense_names_and_shapes():
    model = network()
    dense = {name: p.shape for name, p in model.named_parameters()}
    seen = {}
    decaying, others = lth.parameter_groups(
        lth.sparsify(model, draw_masks(model)), DECAY, decays=lambda name, shape: bool(seen.update({name: shape}))
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
