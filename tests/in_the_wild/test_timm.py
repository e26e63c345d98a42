"""timm's optimizer factory, parameter groups and averages of weights."""

import pytest
import torch
from torch import nn

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_twins, draw_masks, network, sgd, train, twins

optim = pytest.importorskip("timm.optim", reason="timm is not installed")

DECAY = 0.3
"""Large, so that a few steps show where it is missing."""
DOUBLE = {"dtype": torch.float64}


def created(model, name, groups=None, **options):
    return optim.create_optimizer_v2(model if groups is None else groups, opt=name, lr=0.01, **options)


ELEMENTWISE = [
    "sgd",
    "adamw",
    "nadamw",
    "lamb",
    "lars",
    "lion",
    "adan",
    "madgrad",
    "rmsproptf",
    "novograd",
    "adabelief",
]
GO_BY_SHAPE = ["adamp", "sgdp", "muon", "adamuon", "cadamw", "mars"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_factory_trains_the_dense_model_as_it_does_a_sparse_one_with_our_groups(name):
    sparse, dense = twins(**DOUBLE)
    train(dense, created(dense, name, weight_decay=DECAY), **DOUBLE)
    train(sparse, created(sparse, name, lth.parameter_groups(sparse, DECAY)), **DOUBLE)
    assert_twins(sparse, dense)


@pytest.mark.parametrize("name", GO_BY_SHAPE)
def test_optimizers_that_project_orthogonalise_or_average_over_a_weight_differ(name):
    sparse, dense = twins(**DOUBLE)
    train(dense, created(dense, name, weight_decay=DECAY), **DOUBLE)
    train(sparse, created(sparse, name, lth.parameter_groups(sparse, DECAY)), **DOUBLE)
    with pytest.raises(AssertionError, match="not close"):
        assert_twins(sparse, dense)


def test_the_factorys_own_groups_spare_every_sparse_layer():
    sparse, dense = twins(**DOUBLE)
    for model in (sparse, dense):
        train(model, created(model, "adamw", weight_decay=DECAY), **DOUBLE)
    with pytest.raises(AssertionError, match="not close"):
        assert_twins(sparse, dense)


def test_without_its_filter_everything_decays_on_both():
    sparse, dense = twins(**DOUBLE)
    for model in (sparse, dense):
        train(model, created(model, "adamw", weight_decay=DECAY, filter_bias_and_bn=False), **DOUBLE)
    assert_twins(sparse, dense)


def test_our_groups_are_timms_of_the_dense_model():
    model = network()
    no_decay, decay = optim.param_groups_weight_decay(model, DECAY)
    ours = lth.parameter_groups(model, DECAY)
    assert [[id(p) for p in group["params"]] for group in ours] == [
        [id(p) for p in group["params"]] for group in (decay, no_decay)
    ]
    assert [group["weight_decay"] for group in ours] == [decay["weight_decay"], no_decay["weight_decay"]]

    names = {p: name for name, p in model.named_parameters()}
    dense_names = {names[p] for p in decay["params"]}
    sparse = lth.sparsify(model, draw_masks(model))
    assert not any(group["weight_decay"] for group in optim.param_groups_weight_decay(sparse, DECAY))
    names = {p: name.replace("values", "weight") for name, p in sparse.named_parameters()}
    assert {names[p] for p in lth.parameter_groups(sparse, DECAY)[0]["params"]} == dense_names


class Staged(nn.Module):
    """With the group_matcher that timm's models have: two stages and a head."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head = network()[:6], network()[6]

    def forward(self, x):
        return self.head(self.blocks(x))

    def group_matcher(self, coarse=False):
        return {"blocks": r"^blocks\.(\d+)"}


def scaled(model, groups):
    """Learning rates as timm's schedulers scale them."""
    return torch.optim.AdamW([{**group, "lr": 0.01 * group["lr_scale"]} for group in groups])


def test_layer_decay_with_the_names_that_decay_spares():
    sparse, dense = twins(Staged, **DOUBLE)
    options = {"weight_decay": DECAY, "layer_decay": 0.5}
    train(dense, scaled(dense, optim.param_groups_layer_decay(dense, **options)), **DOUBLE)
    _, others = lth.parameter_groups(sparse, DECAY)
    spared = [name for name, parameter in sparse.named_parameters() if any(parameter is p for p in others["params"])]
    groups = optim.param_groups_layer_decay(
        sparse, **options, weight_decay_exclude_1d=False, no_weight_decay_list=spared
    )
    assert len({group["lr_scale"] for group in groups}) == 4
    train(sparse, scaled(sparse, groups), **DOUBLE)
    assert_twins(sparse, dense)


@pytest.mark.parametrize("options", [{}, {"use_warmup": True}, {"foreach": False}], ids=str)
def test_model_ema_v3(options):
    from timm.utils import ModelEmaV3

    averages = []
    for model in twins():
        average, optimizer = ModelEmaV3(model, decay=0.5, **options), sgd(model)
        for step in range(3):
            train(model, optimizer, count=1)
            average.update(model, step=step)
        averages.append(average.module)
    assert_twins(*averages)
