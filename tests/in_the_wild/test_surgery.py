"""Programs that change a layer that is there: its stride for segmentation, its padding for textures, its bias."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, batches, dense_state, sgd, twins

((IMAGES, _),) = batches(count=1)


def body():
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))


CHANGES = {
    "output stride": {"stride": (1, 1), "dilation": (2, 2), "padding": (2, 2)},
    "stride": {"stride": 1},
    "padding": {"padding": 0},
    "padding of two sizes": {"padding": (2, 0)},
    "padding same": {"stride": (1, 1), "padding": "same"},
    "dilation": {"dilation": (1, 2)},
    "tiling textures": {"padding_mode": "circular"},
    "other modes": {"padding_mode": "reflect"},
}


@pytest.mark.parametrize("backend", ["auto", "cpp", "dense"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_what_is_assigned_to_a_convolution_counts(changes, backend):
    models = twins(body, backend=backend)
    for model in models:
        model(IMAGES)
        for name, value in changes.items():
            setattr(model[0], name, value)
        optimizer = sgd(model)
        for images, _ in batches():
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    sparse, dense = models
    assert_equal(dense_state(sparse), dense.state_dict())
    assert_equal(sparse(IMAGES), dense(IMAGES))
    assert_equal(lth.densify(copy.deepcopy(sparse))(IMAGES), dense(IMAGES))


@pytest.mark.parametrize("name", ["groups", "in_channels", "out_channels", "kernel_size"])
def test_what_the_masks_shape_settles_stays(name):
    sparse, _ = twins(body)
    before = getattr(sparse[2], name)
    with pytest.raises(ValueError, match=f"^{name}: got 2, expected .*, as the layer was made: make another one"):
        setattr(sparse[2], name, 2)
    setattr(sparse[2], name, before)
    with pytest.raises(ValueError, match=r"^out_features: got 9, expected 3, as the layer was made"):
        lth.SparseLinear(4, 3).out_features = 9


@pytest.mark.parametrize("bias", [None, "new"])
def test_a_bias_is_taken_away_or_replaced(bias):
    models = twins(body)
    for model in models:
        model[0].bias = None if bias is None else nn.Parameter(torch.arange(8.0))
    ours, theirs = (model(IMAGES) for model in models)
    assert_equal(ours, theirs)


def test_forward_is_wrapped_around_a_layer_that_stays():
    models = twins(body)
    for model in models:
        forward = model[0].forward
        model[0].forward = lambda x, forward=forward: F.relu(forward(2 * x))
    assert_equal(*(model(IMAGES) for model in models))


def test_a_norm_is_folded_into_the_layer_before_it():
    sparse, dense = (model.eval() for model in twins())
    norm = nn.BatchNorm1d(5).eval()
    nn.init.uniform_(norm.weight)
    folded, plain = fuse_conv_bn_eval(sparse[0], sparse[1]), fuse_conv_bn_eval(dense[0], dense[1])
    assert isinstance(folded, lth.SparseConv2d)
    assert_equal(folded(IMAGES), plain(IMAGES))
    features = torch.randn(3, 54)
    assert_equal(fuse_linear_bn_eval(sparse[6], norm)(features), fuse_linear_bn_eval(dense[6], norm)(features))


def test_a_program_that_asks_for_the_dense_class_passes_sparse_layers_over():
    sparse, _ = twins(body)
    assert not any(isinstance(module, nn.Conv2d | nn.Linear) for module in sparse.modules())
    assert sum(isinstance(module, lth.SparseConv2d | lth.SparseLinear) for module in sparse.modules()) == 2
