"""Averages of weights, by PyTorch's AveragedModel and by hand: sparse models and masked dense ones come out equal."""

import copy

import pytest
import torch
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, update_bn

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, sgd, train, twins

IMAGES = [images for images, _ in batches()]


def averaged(model, **options):
    average, optimizer = AveragedModel(model, **options), sgd(model)
    for _ in range(3):
        train(model, optimizer, count=1)
        average.update_parameters(model)
    update_bn(IMAGES, average)
    return average.module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
        {"avg_fn": get_ema_avg_fn(0.9)},
        {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": True},
        {"avg_fn": get_ema_avg_fn(0.9), "use_buffers": True},
    ],
    ids=["mean", "EMA", "EMA by tensor", "EMA with buffers", "EMA by tensor with buffers"],
)
def test_an_averaged_model_is_that_of_the_dense_model(options):
    ours, theirs = (averaged(model, **options) for model in twins())
    assert_equal(ours.eval()(IMAGES[0]), theirs.eval()(IMAGES[0]))
    assert_twins(ours, theirs)


def test_stochastic_weight_averaging_with_its_own_learning_rate():
    averages = []
    for model in twins():
        average, optimizer = AveragedModel(model), sgd(model)
        scheduler = SWALR(optimizer, 0.05, anneal_epochs=2)
        for _ in range(3):
            train(model, optimizer, count=2)
            scheduler.step()
            average.update_parameters(model)
        update_bn(IMAGES, average)
        averages.append(average.module)
    assert_twins(*averages)


def test_a_mean_with_buffers_is_refused_by_pytorch():
    sparse, _ = twins()
    with pytest.raises(RuntimeError, match="Subtraction, the `-` operator, with two bool tensors is not supported"):
        averaged(sparse, use_buffers=True)


@pytest.mark.parametrize("tensors", [lambda m: m.state_dict().values(), lambda m: [*m.parameters(), *m.buffers()]])
def test_an_average_by_hand_follows_a_mask_that_moves(tensors):
    model, _ = twins()
    average = copy.deepcopy(model)
    average(IMAGES[0])
    layer = model[6]
    layer.load_state_dict({"mask": layer.mask.flip(0), "values": torch.randn_like(layer.values)}, strict=False)
    with torch.no_grad():
        for mean, new in zip(tensors(average), tensors(model), strict=True):
            mean.copy_(new)
    assert_equal(average(IMAGES[0]), model(IMAGES[0]))
    assert_equal(average.eval()(IMAGES[0]), lth.densify(copy.deepcopy(average))(IMAGES[0]))
