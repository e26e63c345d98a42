"""Where Winograd's algorithm computes a layer, and the setting that limits it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse.backends import registry, winograd
from lth_sparse.backends.auto import candidates
from lth_sparse.plans.layer_spec import LayerSpec

needs_cpp = pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="the C++ kernels cannot be used here")
LAYER = LayerSpec("conv2d", 64, 64, (3, 3), padding=(1, 1))
SHAPE = (32, 64, 16, 16)


@pytest.fixture(autouse=True)
def setting():
    with winograd.limited("4x4"):
        yield


def test_dense_layers_are_worth_it_and_sparse_ones_are_not():
    assert winograd.worth_it("forward", LAYER, 1.0, SHAPE)
    assert winograd.worth_it("forward", LAYER, 0.5, SHAPE)
    assert not winograd.worth_it("forward", LAYER, 0.05, SHAPE)


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": (1, 1)},
        {"kernel_size": (5, 5)},
        {"stride": (2, 2)},
        {"stride": (1, 2)},
        {"dilation": (2, 2)},
        {"groups": 2},
        {"padding": (3, 3)},
    ],
)
def test_layers_that_it_does_not_compute(other):
    settings = {"kernel_size": (3, 3), "padding": (1, 1)} | other
    spec = LayerSpec("conv2d", 64, 64, **settings)
    assert not winograd.computes(spec)
    assert not winograd.worth_it("forward", spec, 1.0, SHAPE)


@pytest.mark.parametrize(("size", "tile"), [(32, 4), (7, 4), (4, 4), (2, 2), (6, 2), (1, 2)])
def test_the_tile_with_the_fewest_products(size, tile):
    assert winograd.tile(LAYER, (1, 64, size, size)) == tile


def test_the_setting_limits_the_tile():
    lth.set_winograd("2x2")
    assert winograd.tile(LAYER, SHAPE) == 2
    lth.set_winograd("off")
    assert not winograd.worth_it("forward", LAYER, 1.0, SHAPE)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"winograd: got '4x5', expected one of off, 2x2, 4x4, did you mean"):
        lth.set_winograd("4x5")
    assert winograd.setting() == "4x4"


@pytest.mark.parametrize(("value", "said"), [("2x2", "2x2"), ("8", "expected one of off, 2x2, 4x4")])
def test_the_environment_sets_it(value, said, monkeypatch):
    monkeypatch.setenv(winograd.VARIABLE, value)
    code = "from lth_sparse.backends import winograd; print(winograd.setting())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said in done.stdout + done.stderr


@needs_cpp
def test_its_kernels_are_found_by_name_and_not_listed():
    assert "cpp/winograd" not in registry.backends()
    assert registry.kernels("cpp") == ["cpp/depthwise", "cpp/sparse", "cpp/winograd"]
    assert {"cpp/sparse", "cpp/winograd"} <= set(candidates())
    assert "cpp" not in candidates()
    assert registry.get("cpp/winograd").name == "cpp/winograd"


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [1.0, 0.05])
def test_cpp_takes_the_kernels_that_the_rule_says(density, dtype):
    mask = torch.rand(LAYER.weight_shape) < density
    dense = nn.Conv2d(64, 64, 3, padding=1).to(dtype)
    x = torch.randn(SHAPE, dtype=dtype)
    by_name = {
        name: lth.SparseConv2d.from_dense(dense, mask, name)(x)
        for name in ["cpp", "cpp/sparse", *(["cpp/winograd"] if dtype == torch.float32 else [])]
    }
    expected = "cpp/winograd" if dtype == torch.float32 and density == 1.0 else "cpp/sparse"
    assert torch.equal(by_name["cpp"], by_name[expected])


@needs_cpp
@pytest.mark.parametrize("device_or_dtype", [torch.float64, "meta", "off"])
def test_where_it_cannot_compute_dense_does_and_says_why(device_or_dtype):
    spec, dtype, device = LAYER, torch.float32, torch.device("cpu")
    if isinstance(device_or_dtype, torch.dtype):
        dtype = device_or_dtype
    elif device_or_dtype == "off":
        lth.set_winograd("off")
    else:
        device = torch.device(device_or_dtype)
    supported, reason = registry.get("cpp/winograd").supports(spec, dtype, device)
    assert not supported
    assert reason


@needs_cpp
def test_a_layer_trains_as_dense_pytorch_does():
    torch.manual_seed(0)
    dense = nn.Conv2d(16, 24, 3, padding=1)
    sparse = lth.SparseConv2d.from_dense(dense, None, "cpp/winograd")
    x = torch.randn(8, 16, 12, 12)
    for layer in (dense, sparse):
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(sparse.to_dense().weight, dense.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sparse.bias, dense.bias, rtol=1e-5, atol=1e-6)
