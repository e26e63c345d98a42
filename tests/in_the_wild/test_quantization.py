"""torch.ao.quantization swaps the layers that it knows: sparse ones stay in float, dense again they are quantized."""

import copy

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, batches, dense_state, twins

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

((IMAGES, _),) = batches(count=1)


def half_sparse():
    """Two linear layers, of which the second is sparse."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4))
    return lth.sparsify(model, {"2": torch.rand(4, 8) < 0.5}).eval()


def test_dynamic_quantization_leaves_sparse_layers_in_float():
    model = half_sparse()
    quantized = quantization.quantize_dynamic(model, {nn.Linear})
    assert type(quantized[0]).__name__ == "Linear"
    assert not isinstance(quantized[0], nn.Linear)
    assert isinstance(quantized[2], lth.SparseLinear)
    x = torch.randn(5, 9)
    assert_equal(quantized(x), quantized[2](torch.relu(quantized[0](x))))
    assert_equal(quantized[2].state_dict(), model[2].state_dict())


def test_dense_again_it_is_quantized_as_the_masked_dense_model():
    sparse, dense = (model.eval() for model in twins())
    lth.densify(sparse)
    ours, theirs = (quantization.quantize_dynamic(model, {nn.Linear})(IMAGES) for model in (sparse, dense))
    assert_equal(ours, theirs)


def test_prepare_and_convert_leave_sparse_layers_in_float():
    model = nn.Sequential(
        quantization.QuantStub(), half_sparse()[0], quantization.DeQuantStub(), half_sparse()[2]
    ).eval()
    model.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(model)
    x = torch.randn(5, 9)
    prepared(x)
    converted = quantization.convert(prepared)
    assert "quantized" in type(converted[1]).__module__
    assert isinstance(converted[3], lth.SparseLinear)
    torch.testing.assert_close(converted(x), model(x), rtol=0.1, atol=0.1)


def test_quantization_aware_training_leaves_sparse_layers_in_float():
    sparse, _ = twins()
    before = dense_state(sparse)
    sparse.train().qconfig = quantization.get_default_qat_qconfig()
    prepared = quantization.prepare_qat(sparse)
    assert isinstance(prepared[0], lth.SparseConv2d)
    assert not hasattr(prepared[0], "weight_fake_quant")
    torch.testing.assert_close(prepared[0].to_dense().weight, before["0.weight"], rtol=0, atol=0)


def test_what_fx_prepares_and_converts_leaves_sparse_layers_in_float():
    sparse, _ = twins()
    sparse.eval()
    leaves = PrepareCustomConfig().set_non_traceable_module_classes([lth.SparseConv2d, lth.SparseLinear])
    mapping = quantization.get_default_qconfig_mapping()
    prepared = prepare_fx(copy.deepcopy(sparse), mapping, (IMAGES,), prepare_custom_config=leaves)
    prepared(IMAGES)
    converted = convert_fx(prepared)
    assert "quantized" in type(converted.get_submodule("1")).__module__
    assert isinstance(converted.get_submodule("0"), lth.SparseConv2d)
    torch.testing.assert_close(converted(IMAGES), sparse(IMAGES), rtol=0.1, atol=0.1)
