"""Others that run a pruned layer: nothing of theirs is copied, and each is installed only by who asks for it.

All infer only, so a peer's side is a forward pass. `pip install -e '.[peers]'` brings what can be installed.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec


@dataclass(frozen=True)
class Peer:
    """`side`: from the spec, the mask, x and the masked dense weight, on the CPU, contiguous. `modules`: it needs."""

    side: Callable[[LayerSpec, Tensor, Tensor, Tensor], Side]
    modules: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str:
        """Why it cannot be run here, "" if it can."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else ""


def torch_csr(spec: LayerSpec, mask: Tensor, x: Tensor, weight: Tensor) -> Side:
    """torch.sparse_csr times the input, which a convolution unfolds into columns at each call."""
    matrix = weight.flatten(1).to_sparse_csr()
    if spec.kind == "linear":
        return {"forward": lambda: (matrix @ x.t()).t()}
    if spec.groups != 1:
        raise ValueError(f"{spec}: unfolding knows no groups")
    size = spec.output_size(*x.shape[2:])

    def forward() -> Tensor:
        columns = F.unfold(x, spec.kernel_size, spec.dilation, spec.padding, spec.stride)
        flat = columns.transpose(0, 1).reshape(columns.shape[1], -1)  # [C_in * taps, N * H_out * W_out]
        return (matrix @ flat).view(spec.out_channels, len(x), *size).transpose(0, 1)

    return {"forward": forward}


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


def onnxruntime_dense(spec: LayerSpec, mask: Tensor, x: Tensor, weight: Tensor) -> Side:
    """onnxruntime on the CPU, with as many threads as PyTorch, which multiplies by the zeros."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning into the next side's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(spec, x, weight, Path(folder))
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return {"forward": lambda: torch.from_numpy(session.run(None, given)[0])}


def deepsparse(spec: LayerSpec, mask: Tensor, x: Tensor, weight: Tensor) -> Side:
    """DeepSparse's engine, compiled for the batch, with as many cores as PyTorch has threads."""
    import deepsparse

    with tempfile.TemporaryDirectory() as folder:
        path = onnx_file(spec, x, weight, Path(folder))
        engine = deepsparse.compile_model(str(path), batch_size=len(x), num_cores=torch.get_num_threads())
    given = [x.numpy()]
    return {"forward": lambda: torch.from_numpy(engine.run(given)[0])}


PEERS = {
    "torch CSR": Peer(torch_csr),
    "onnxruntime dense": Peer(onnxruntime_dense, ("onnxruntime", "onnx"), "pip install -e '.[peers]'"),
    "DeepSparse": Peer(
        deepsparse, ("deepsparse", "onnx"), "pip install deepsparse==1.8.0 'numpy<2' (Python 3.8 to 3.11)"
    ),
}
