"""Models whose own numbers are bfloat16 or float16, on the CPU: cpp does what nn's layers do."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse.backends import registry
from tests.in_the_wild.side_by_side import batches, dense_state, train, twins

pytestmark = pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="cpp cannot be used here")

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, lth.SparseConv2d | lth.SparseLinear)]


@DTYPES
@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"eps": 1e-3}], ids=["SGD", "Adam"])
def test_it_trains_as_the_masked_dense_model(options, dtype):
    optimizer = torch.optim.SGD if "momentum" in options else torch.optim.Adam
    models = twins(dtype=dtype, backend="cpp")
    assert {layer.computed_by for layer in layers(models[0])} == {"cpp"}
    ours, theirs = (train(model, optimizer(model.parameters(), 0.01, **options), dtype=dtype) for model in models)
    torch.testing.assert_close(ours, theirs, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert {each.grad.dtype for each in models[0].parameters()} == {dtype}
    states = [dense_state(model) for model in models]
    for name, trained in states[0].items():
        # Each of three steps, of about 0.01 at most, may round a weight the other way.
        bound = 3 * torch.finfo(dtype).eps * (trained.abs().max().item() + 1) + 0.003
        assert (trained - states[1][name]).abs().max() <= bound, name


@DTYPES
def test_state_dicts_and_tickets_keep_every_bit(dtype, tmp_path):
    sparse, _ = twins(dtype=dtype, backend="cpp")
    ((images, _),) = batches(count=1, dtype=dtype)
    expected = sparse.eval()(images)
    lth.save_ticket(tmp_path / "ticket", sparse)
    for load in (
        lambda other: other.load_state_dict(sparse.state_dict()),
        partial(lth.load_ticket, tmp_path / "ticket"),
    ):
        other = copy.deepcopy(sparse)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        load(other)
        assert torch.equal(other(images), expected)
        assert {each.dtype for each in other.parameters()} == {dtype}


@DTYPES
@pytest.mark.parametrize("backend", ["cpp", "auto"])
def test_it_is_compiled(backend, dtype):
    sparse, _ = twins(dtype=dtype, backend=backend)
    ((images, _),) = batches(count=1, dtype=dtype)
    sparse.eval()(images)
    torch.compiler.reset()
    assert torch.equal(torch.compile(sparse, backend="aot_eager", fullgraph=True)(images), sparse(images))


@DTYPES
def test_an_input_of_another_dtype_is_named(dtype):
    sparse, _ = twins(dtype=dtype, backend="cpp")
    ((images, _),) = batches(count=1)
    with pytest.raises(TypeError, match=f"input: got dtype torch.float32, expected {dtype}, the layer's own"):
        sparse(images)
