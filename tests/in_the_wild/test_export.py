"""torch.export and torch.onnx of sparse models: what is exported gives what masked dense models give."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.export import Dim, export, load, save

from lth_sparse.backends import registry
from tests.in_the_wild.twins import network, twins

BACKENDS = [name for name, reason in registry.backends().items() if not reason]
STRICT = pytest.mark.parametrize("strict", [False, True])
X = torch.randn(3, 3, 6, 5, generator=torch.Generator().manual_seed(1))
MORE = torch.randn(7, 3, 6, 5, generator=torch.Generator().manual_seed(2))
ANY_BATCH = ({0: Dim("batch")},)


def as_trained(backend="auto"):
    torch.manual_seed(0)
    return twins(network(), backend)


@STRICT
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_gives_the_outputs_of_the_dense_model(backend, strict):
    dense, sparse = as_trained(backend)
    program = export(sparse, (X,), strict=strict)
    torch.testing.assert_close(program.module()(X), dense(X))
    torch.testing.assert_close(program.run_decompositions().module()(X), dense(X))


@STRICT
def test_a_program_for_any_batch(strict, tmp_path):
    dense, sparse = as_trained()
    program = export(sparse, (X,), dynamic_shapes=ANY_BATCH, strict=strict)
    for images in (X, MORE, X[:1]):
        torch.testing.assert_close(program.module()(images), dense(images))
    save(program, tmp_path / "program.pt2")
    torch.testing.assert_close(load(tmp_path / "program.pt2").module()(MORE), dense(MORE))


@STRICT
def test_a_program_for_images_of_any_size(strict):
    torch.manual_seed(0)
    padded = nn.Conv2d(4, 3, (2, 3), padding="same", padding_mode="circular")
    dense, sparse = twins(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.ReLU(), padded))
    sizes = ({0: Dim("batch"), 2: Dim("height", min=3), 3: Dim("width", min=3)},)
    program = export(sparse, (torch.randn(2, 3, 9, 9),), dynamic_shapes=sizes, strict=strict)
    images = torch.randn(5, 3, 12, 7)
    torch.testing.assert_close(program.module()(images), dense(images))


@STRICT
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)], ids=len)
def test_rows_of_any_rank(shape, strict):
    torch.manual_seed(0)
    dense, sparse = twins(nn.Sequential(nn.Linear(8, 5)))
    rows = torch.randn(shape)
    sizes = ({dim: Dim(f"size{dim}") for dim in range(len(shape) - 1)},)
    program = export(sparse, (rows,), dynamic_shapes=sizes, strict=strict)
    torch.testing.assert_close(program.module()(rows), dense(rows))


@STRICT
def test_a_program_is_trained_and_follows_the_values(strict):
    dense, sparse = as_trained()
    program = export(sparse, (X,), strict=strict).module()
    program(X).square().sum().backward()
    dense(X).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in program.named_parameters()}
    torch.testing.assert_close(gradients["0.values"], dense[0].weight.grad[sparse[0].mask])
    state = {name: 2 * tensor if tensor.is_floating_point() else tensor for name, tensor in sparse.state_dict().items()}
    program.load_state_dict(state)
    sparse.load_state_dict(state)
    torch.testing.assert_close(program(X), sparse(X))


@STRICT
def test_a_program_refuses_another_mask(strict):
    _, sparse = as_trained()
    program = export(sparse, (X,), strict=strict).module()
    state = {name: tensor.clone() for name, tensor in sparse.state_dict().items()}
    state["0.mask"] = state["0.mask"].flip(0)
    program.load_state_dict(state)
    with pytest.raises(ValueError, match=r"mask: got other live positions, .* export the model again"):
        program(X)


def test_a_mask_that_was_written_before_counts_or_is_refused():
    _, sparse = as_trained()
    sparse[0].mask.copy_(sparse[0].mask.flip(0))
    program = export(sparse, (X,)).module()
    with pytest.raises(ValueError, match=r"mask: got other live positions"):
        program(X)
    expected = sparse(X)
    torch.testing.assert_close(export(sparse, (X,)).module()(X), expected)


def test_what_does_not_fit_is_said_by_name():
    with pytest.raises(ValueError, match=r"input: got shape \(3, 2, 6, 5\), expected \[N, 3, H, W\]"):
        export(as_trained()[1], (X[:, :2],))


def test_a_model_stays_what_it_was():
    dense, sparse = as_trained()
    export(sparse, (X,))
    torch.testing.assert_close(sparse(X), dense(X))
    assert all(type(tensor) is torch.Tensor for tensor in sparse[0].plan.tensors())


def test_a_saved_program_needs_the_package_alone(tmp_path):
    dense, sparse = as_trained()
    save(export(sparse, (X,), dynamic_shapes=ANY_BATCH), tmp_path / "program.pt2")
    torch.save((MORE, dense(MORE).detach()), tmp_path / "expected.pt")
    script = """
        import sys, torch, lth_sparse
        images, expected = torch.load(sys.argv[2])
        torch.testing.assert_close(torch.export.load(sys.argv[1]).module()(images), expected)
    """
    files = [str(tmp_path / name) for name in ("program.pt2", "expected.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *files], check=True)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_of_torchscript(tmp_path):
    dense, sparse = as_trained()
    traced = torch.jit.trace(sparse, (X,))
    torch.testing.assert_close(traced(MORE), dense(MORE))
    torch.jit.save(traced, tmp_path / "trace.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "trace.pt")(MORE), dense(MORE))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_gets_the_dense_weights(tmp_path, dynamo):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    dense, sparse = as_trained()
    file = str(tmp_path / "model.onnx")
    sizes = {"dynamic_shapes": ANY_BATCH} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(sparse.eval(), (X,), file, dynamo=dynamo, input_names=["x"], **sizes)
    session = onnxruntime.InferenceSession(file)
    (outputs,) = session.run(None, {"x": MORE.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), dense(MORE).detach(), rtol=1e-4, atol=1e-5)
    if dynamo:
        onnx = pytest.importorskip("onnx")
        weights = [tuple(each.dims) for each in onnx.load(file).graph.initializer]
        assert {(4, 3, 3, 3), (5, 72)} <= set(weights)
        assert "Conv" in {node.op_type for node in onnx.load(file).graph.node}
