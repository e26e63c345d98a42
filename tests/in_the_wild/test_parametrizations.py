"""PyTorch's tools that change a layer's weight: BatchNorm folded into it, and norms and parametrizations on it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import lth_sparse as lth
from tests.in_the_wild.twins import twins

LAYERS = {
    "convolution": (lambda bias: nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d, torch.randn(5, 3, 6, 6)),
    "linear": (lambda bias: nn.Linear(6, 4, bias=bias), nn.BatchNorm1d, torch.randn(5, 6)),
}
BOTH = pytest.mark.parametrize(("make", "norm", "x"), LAYERS.values(), ids=LAYERS)


@BOTH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_folded_into_a_sparse_layer(make, norm, x, bias, affine):
    if norm is nn.BatchNorm1d and not affine:
        pytest.skip("fuse_linear_bn_eval takes no BatchNorm without weights")
    torch.manual_seed(0)
    normed = norm(4, affine=affine)
    if affine:
        nn.init.normal_(normed.weight)
        nn.init.normal_(normed.bias)
    model = nn.Sequential(make(bias), normed)
    model(x)
    dense, sparse = twins(model.eval())
    before, mask = copy.deepcopy(sparse.state_dict()), sparse[0].mask
    fold = fuse_conv_bn_eval if norm is nn.BatchNorm2d else fuse_linear_bn_eval
    ours, theirs = fold(sparse[0], sparse[1]), fold(dense[0], dense[1])
    assert type(ours) is type(sparse[0])
    assert torch.equal(ours.mask, mask)
    torch.testing.assert_close(ours(x), dense(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.weight, theirs.weight.detach())
    torch.testing.assert_close(ours.bias, theirs.bias)
    torch.testing.assert_close(sparse.state_dict(), before)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(ours.values.grad, theirs.weight.grad[mask], rtol=1e-4, atol=1e-4)


class Twice(nn.Module):
    def forward(self, values):
        return 2 * values


REFUSED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "the old weight_norm": weight_norm,
    "the old spectral_norm": spectral_norm,
    "a parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", Twice()),
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@BOTH
@pytest.mark.parametrize("tool", REFUSED.values(), ids=REFUSED)
def test_tools_for_a_weight_are_refused_and_the_layer_works_on(tool, make, norm, x):
    torch.manual_seed(0)
    dense, sparse = twins(nn.Sequential(make(True)))
    with pytest.raises(
        ValueError, match=r"^weight: a sparse layer has no such parameter.*dense layer \(lth_sparse\.densify"
    ):
        tool(sparse[0])
    torch.testing.assert_close(sparse(x), dense(x))
    assert set(sparse.state_dict()) == {"0.values", "0.mask", "0.bias"}
    tool(lth.densify(sparse)[0])  # as the sentence says


@BOTH
def test_a_parametrization_of_the_values_is_that_of_the_dense_weight(make, norm, x):
    torch.manual_seed(0)
    dense, sparse = twins(nn.Sequential(make(True)))
    for layer, name in ((dense[0], "weight"), (sparse[0], "values")):
        parametrize.register_parametrization(layer, name, Twice())
    torch.testing.assert_close(sparse(x), dense(x))
    for model in (dense, sparse):
        model(x).square().sum().backward()
    ours = sparse[0].parametrizations["values"].original.grad
    theirs = dense[0].parametrizations.weight.original.grad[sparse[0].mask]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for layer, name in ((dense[0], "weight"), (sparse[0], "values")):
        parametrize.remove_parametrizations(layer, name)
    torch.testing.assert_close(sparse(x), dense(x))


@BOTH
def test_a_norm_of_the_dense_layer_goes_into_the_values(make, norm, x):
    torch.manual_seed(0)
    model = nn.Sequential(make(True))
    parametrizations.weight_norm(model[0])
    mask = torch.rand_like(model[0].weight) < 0.5
    with pytest.raises(ValueError, match=r'remove_parametrizations\(layer, "weight"\) first'):
        lth.sparsify(model, {"0": mask})
    parametrize.remove_parametrizations(model[0], "weight")
    expected = copy.deepcopy(model)
    expected[0].weight.data.mul_(mask)
    torch.testing.assert_close(lth.sparsify(model, {"0": mask})(x), expected(x))
