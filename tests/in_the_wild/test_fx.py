"""torch.fx: a sparse layer is one step of a graph, as a dense one is, and the graph calls the layer itself."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse as fold_batch_norm
from torch.fx.passes.shape_prop import ShapeProp
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import lth_sparse as lth
from tests.in_the_wild.twins import network, twins

X = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return twins(network())


def steps(graph):
    return [(node.op, node.target) for node in graph.nodes]


def test_a_trace_has_the_steps_of_the_dense_model(pair):
    dense, sparse = map(fx.symbolic_trace, pair)
    assert steps(sparse.graph) == steps(dense.graph)
    assert sparse.get_submodule("0") is pair[1][0]
    torch.testing.assert_close(sparse(X), dense(X))


def test_a_trace_is_trained_as_the_model_is(pair):
    gradients = []
    for model in pair:
        traced = fx.symbolic_trace(model)
        traced(X).square().sum().backward()
        gradients.append(model[0].weight.grad if model is pair[0] else model[0].values.grad)
    torch.testing.assert_close(gradients[1], gradients[0][pair[1][0].mask])


def test_a_trace_follows_values_masks_and_backends(pair):
    model = pair[1]
    traced = fx.symbolic_trace(model)
    with torch.no_grad():
        model[0].values.mul_(2)
    torch.testing.assert_close(traced(X), model(X))
    other = twins(network())[1]
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(traced(X), other(X))
    model[0].mask.copy_(model[0].mask.flip(0))
    model[3].backend = "dense"
    torch.testing.assert_close(traced(X), model(X))
    for again in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        torch.testing.assert_close(again(X), model(X))
    model.double()
    torch.testing.assert_close(traced(X.double()), model(X.double()))


def test_steps_by_keyword_and_in_other_modules(pair):
    class Around(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.inner = nn.ModuleDict({"layer": layer})

        def forward(self, x):
            return self.inner["layer"](input=x) + 1

    model = Around(pair[1][0])
    traced = fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["inner.layer"]
    torch.testing.assert_close(traced(X), model(X))


def test_a_layer_by_itself_is_no_graph(pair):
    with pytest.raises(TypeError, match=r"torch\.fx: got a SparseConv2d to trace, .*: torch\.nn\.Sequential\(layer\)$"):
        fx.symbolic_trace(pair[1][0])


def test_shapes_are_propagated(pair):
    for traced in map(fx.symbolic_trace, pair):
        ShapeProp(traced).propagate(X)
        shapes = [tuple(node.meta["tensor_meta"].shape) for node in traced.graph.nodes if node.op == "call_module"]
        assert shapes == [(2, 4, 6, 3), (2, 4, 6, 3), (2, 72), (2, 5)]


def test_batch_norm_stays_beside_a_sparse_convolution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model(X + 1)
    dense, sparse = twins(model.eval())
    torch.testing.assert_close(fold_batch_norm(sparse)(X), dense(X))


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_features_of_a_resnet():
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    images = torch.randn(2, 3, 40, 40)
    model(images)
    dense, sparse = twins(model.eval())
    assert get_graph_node_names(sparse) == get_graph_node_names(dense)
    names = ["conv1", "layer2.0.relu", "layer3", "flatten", "fc"]
    for fused in (False, True):
        model = lth.fuse(sparse) if fused else sparse
        features = [create_feature_extractor(each, names)(images) for each in (model, dense)]
        torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)
