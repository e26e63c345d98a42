"""Others' forward passes of a pruned layer, on the CPU: from the spec, x and the masked dense weight, contiguous."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from bench.sides.onnx_engines import deepsparse_engine, onnxruntime_session
from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec


def torch_csr(spec: LayerSpec, x: Tensor, weight: Tensor) -> Side:
    """torch.sparse_csr times the input of a linear layer."""
    matrix = weight.to_sparse_csr()
    return {"forward": lambda: (matrix @ x.t()).t()}


def onnx_file(spec: LayerSpec, x: Tensor, weight: Tensor, folder: Path) -> Path:
    """The layer as an ONNX model of one operator, input "x", output "y"."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs = ["x", "weight"]
    if spec.kind == "linear":
        node = helper.make_node("Gemm", inputs, ["y"], transB=1)
        shape = [x.shape[0], spec.out_channels]
    else:
        geometry = {"strides": spec.stride, "dilations": spec.dilation, "pads": spec.padding * 2, "group": spec.groups}
        node = helper.make_node("Conv", inputs, ["y"], kernel_shape=spec.kernel_size, **geometry)
        shape = [x.shape[0], spec.out_channels, *spec.output_size(*x.shape[2:])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in (("x", x.shape), ("y", shape))
    ]
    graph = helper.make_graph(
        [node], "layer", ends[:1], ends[1:], [numpy_helper.from_array(weight.numpy(), name="weight")]
    )
    # Old enough for every runtime that is asked for.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    path = folder / "layer.onnx"
    onnx.save(model, str(path))
    return path


def onnxruntime_dense(spec: LayerSpec, x: Tensor, weight: Tensor) -> Side:
    """onnxruntime on the CPU, with as many threads as PyTorch, which multiplies by the zeros."""
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime_session(onnx_file(spec, x, weight, Path(folder)))
    given = {"x": x.numpy()}
    return {"forward": lambda: torch.from_numpy(session.run(None, given)[0])}


def deepsparse(spec: LayerSpec, x: Tensor, weight: Tensor) -> Side:
    """DeepSparse's engine, compiled for the batch, with as many cores as PyTorch has threads."""
    with tempfile.TemporaryDirectory() as folder:
        engine = deepsparse_engine(onnx_file(spec, x, weight, Path(folder)), len(x))
    given = [x.numpy()]
    return {"forward": lambda: torch.from_numpy(engine.run(given)[0])}
