"""ONNX: a densified copy of a sparse model is exported, and onnxruntime computes what the sparse model computes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse import models

onnxruntime = pytest.importorskip("onnxruntime")

NETWORKS = {"resnet20": (3, 16, 16), "vgg16": (3, 16, 16), "lenet-300-100": (1, 28, 28)}


def sparse(name):
    """A sparse network in eval mode, its BatchNorms' statistics those of some batches."""
    torch.manual_seed(0)
    model = models.build(models.Network(name, NETWORKS[name], 10), seed=0)
    for _ in range(2):
        model(torch.randn(8, *NETWORKS[name]))
    layers = {layer: each for layer, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    masks = {layer: torch.rand_like(each.weight) < 0.2 for layer, each in layers.items()}
    return lth.sparsify(model, masks).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_computes_what_the_sparse_network_computes(tmp_path, name):
    model = sparse(name)
    dense = lth.densify(copy.deepcopy(model))
    batch = torch.export.Dim("batch")
    path = tmp_path / "model.onnx"
    torch.onnx.export(dense, (torch.randn(2, *NETWORKS[name]),), path, dynamic_shapes=({0: batch},), verbose=False)
    assert any(isinstance(each, lth.SparseConv2d | lth.SparseLinear) for each in model.modules())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    for count in (1, 2, 7):
        x = torch.randn(count, *NETWORKS[name])
        (output,) = session.run(None, {given.name: x.numpy()})
        expected = model(x).detach().numpy()
        assert np.abs(output - expected).max() <= 2e-5 * np.abs(expected).max()


def test_pruned_weights_are_zeros_in_the_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    layer = lth.sparsify(nn.Sequential(nn.Linear(40, 30)), {"0": torch.rand(30, 40) < 0.1})
    path = tmp_path / "model.onnx"
    torch.onnx.export(lth.densify(copy.deepcopy(layer)).eval(), (torch.randn(2, 40),), path, verbose=False)
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    (weight,) = (each for each in stored.values() if each.ndim == 2)
    expected = layer[0].weight.detach().numpy()
    assert np.array_equal(weight if weight.shape == expected.shape else weight.T, expected)
