"""Averages of weights, by PyTorch's AveragedModel and by hand: sparse models and masked dense ones come out equal."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, update_bn

import lth_sparse as lth

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pair():
    """A masked dense model and its sparse twin."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    masks = {name: torch.rand(dense.get_submodule(name).weight.shape) < 0.4 for name in ("0", "4")}
    with torch.no_grad():
        for name, mask in masks.items():
            dense.get_submodule(name).weight.mul_(mask)
    return dense, lth.sparsify(copy.deepcopy(dense), masks)


def train(model, after_each_step):
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    masks = {
        name: module.weight != 0 for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    for step in range(4):
        optimizer.zero_grad()
        model(X + step).square().mean().backward()
        for name, mask in masks.items():
            model.get_submodule(name).weight.grad.mul_(mask)
        optimizer.step()
        after_each_step()


def averaged(model, **options):
    average = AveragedModel(model, **options)
    train(model, lambda: average.update_parameters(model))
    return average


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
def test_an_averaged_model_is_that_of_the_dense_model(pair, options):
    dense, sparse = (averaged(model, **options) for model in pair)
    update_bn([X], dense)
    update_bn([X], sparse)
    torch.testing.assert_close(sparse.eval()(X), dense.eval()(X))
    torch.testing.assert_close(lth.densify(sparse.module).state_dict(), dense.module.state_dict())


def test_a_mean_with_buffers_is_refused_by_pytorch(pair):
    with pytest.raises(RuntimeError, match="Subtraction, the `-` operator, with two bool tensors is not supported"):
        averaged(pair[1], use_buffers=True)


@pytest.mark.parametrize("tensors", [lambda m: m.state_dict().values(), lambda m: [*m.parameters(), *m.buffers()]])
def test_an_average_by_hand_follows_a_mask_that_moves(pair, tensors):
    model = pair[1]
    average = copy.deepcopy(model)
    average(X)
    layer = model[4]
    layer.load_state_dict({"mask": layer.mask.flip(0), "values": torch.randn_like(layer.values)}, strict=False)
    with torch.no_grad():
        for mean, new in zip(tensors(average), tensors(model), strict=True):
            mean.copy_(new)
    torch.testing.assert_close(average(X), model(X))
    torch.testing.assert_close(average.eval()(X), lth.densify(copy.deepcopy(average))(X))
