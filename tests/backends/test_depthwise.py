"""Where the depthwise kernels compute a layer."""

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse.backends import registry
from lth_sparse.backends.auto import candidates
from lth_sparse.backends.cpp_depthwise import computes
from lth_sparse.plans.layer_spec import LayerSpec

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
)


def layer(channels=12, size=3, dtype=torch.float32, **rest):
    return nn.Conv2d(channels, channels, size, **{"padding": size // 2, "groups": channels} | rest).to(dtype)


def spec(**changed):
    given = {"in_channels": 12, "out_channels": 12, "kernel_size": (3, 3), "padding": (1, 1), "groups": 12}
    return LayerSpec("conv2d", **given | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"groups": 1},
        {"groups": 6},
        {"out_channels": 24},
        {"kernel_size": (7, 7)},
        {"kernel_size": (3, 5)},
        {"stride": (3, 3)},
        {"stride": (1, 2)},
        {"dilation": (2, 2)},
    ],
)
def test_what_is_left_to_other_kernels(changed):
    assert computes(spec())
    assert not computes(spec(**changed))
    supported, reason = registry.get("cpp/depthwise").supports(spec(**changed), torch.float32, torch.device("cpu"))
    assert not supported
    assert "each channel by itself" in reason


def test_they_are_candidates_of_auto():
    assert "cpp/depthwise" in candidates()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_cpp_takes_them_at_any_density(density, stride):
    dense = layer(stride=stride)
    mask = torch.rand(dense.weight.shape) < density
    x = torch.randn(2, 12, 14, 14)
    outputs = [lth.SparseConv2d.from_dense(dense, mask, name)(x) for name in ("cpp", "cpp/depthwise")]
    assert torch.equal(*outputs)


def test_cpp_takes_sparse_kernels_in_float64():
    dense = layer(dtype=torch.float64)
    x = torch.randn(2, 12, 14, 14, dtype=torch.float64)
    outputs = [lth.SparseConv2d.from_dense(dense, None, name)(x) for name in ("cpp", "cpp/sparse")]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_layer_trains_as_dense_pytorch_does(memory_format):
    torch.manual_seed(0)
    dense = layer(20, 5, stride=2)
    sparse = lth.SparseConv2d.from_dense(dense, None, "cpp/depthwise")
    assert sparse.computed_by == "cpp/depthwise"
    x = torch.randn(8, 20, 13, 13).contiguous(memory_format=memory_format)
    for each in (dense, sparse):
        optimizer = torch.optim.SGD(each.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            each(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(sparse.to_dense().weight, dense.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sparse.bias, dense.bias, rtol=1e-5, atol=1e-6)


def test_gradients_in_another_memory_format_than_the_input():
    torch.manual_seed(0)
    dense = layer(20)
    sparse = lth.SparseConv2d.from_dense(dense, None, "cpp/depthwise")
    x, grad_out = torch.randn(3, 20, 9, 9), torch.randn(3, 20, 9, 9).contiguous(memory_format=torch.channels_last)
    for each in (dense, sparse):
        each(x).backward(grad_out)
    torch.testing.assert_close(sparse.values.grad.view_as(dense.weight), dense.weight.grad, rtol=1e-5, atol=1e-5)
