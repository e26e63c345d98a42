"""Programs that write weights, with sparse layers in their model."""

import copy

import pytest
import torch
from torch import nn

import lth_sparse as lth

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def dense_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


@pytest.fixture
def masks():
    torch.manual_seed(2)
    return {"0": torch.rand(4, 3, 3, 3) < 0.4, "3": torch.rand(5, 64) < 0.1}


def assert_is_the_masked(sparse, dense, masks):
    with torch.no_grad():
        for name, mask in masks.items():
            dense.get_submodule(name).weight.mul_(mask)
    torch.testing.assert_close(sparse(X), dense(X))


def test_every_layer_is_reset_by_apply(masks):
    dense = dense_model()
    sparse = lth.sparsify(copy.deepcopy(dense), masks)

    def reset(module):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    torch.manual_seed(7)
    dense.apply(reset)
    torch.manual_seed(7)
    sparse.apply(reset)
    assert_is_the_masked(sparse, dense, masks)


def test_a_rewind_assigns_the_first_weights(masks):
    dense = dense_model()
    first = {name: dense.get_submodule(name).weight.detach().clone() for name in masks}
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    optimizer = torch.optim.Adam(sparse.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        sparse(X).square().mean().backward()
        optimizer.step()
    for name, weight in first.items():
        sparse.get_submodule(name).weight = weight
        sparse.get_submodule(name).bias = dense.get_submodule(name).bias
    assert_is_the_masked(sparse, dense, masks)
    assert all(any(each is p for p in sparse.parameters()) for each in [sparse[0].values, sparse[3].values])


def test_a_custom_initialisation_says_what_to_do_and_then_does_it(masks):
    sparse, dense = lth.sparsify(dense_model(), masks), dense_model()

    def initialise(module):
        if getattr(module, "weight", None) is not None:
            nn.init.xavier_uniform_(module.weight)

    with pytest.raises(RuntimeError, match=r"assign the whole weight \(layer\.weight = tensor\)"):
        sparse.apply(initialise)

    def assign(module):
        if getattr(module, "weight", None) is not None:
            module.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty_like(module.weight)))

    torch.manual_seed(7)
    dense.apply(initialise)
    torch.manual_seed(7)
    sparse.apply(assign)
    assert_is_the_masked(sparse, dense, masks)


def test_a_penalty_on_the_weights_is_that_of_the_dense_model(masks):
    dense = dense_model()
    sparse = lth.sparsify(copy.deepcopy(dense), masks)
    assert_is_the_masked(sparse, dense, masks)
    for model in (dense, sparse):
        penalty = sum(m.weight.abs().sum() + m.weight.square().sum() for m in model if hasattr(m, "weight"))
        (model(X).square().mean() + penalty).backward()
    for name, mask in masks.items():
        torch.testing.assert_close(sparse.get_submodule(name).values.grad, dense.get_submodule(name).weight.grad[mask])
