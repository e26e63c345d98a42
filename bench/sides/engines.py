"""Others that run a whole network for inference, on the CPU with as many threads as PyTorch, from a pruned dense model.

Each is given float32 images and gives float32 outputs. None but DeepSparse skips the zeros.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.sides.installed import DEEPSPARSE, PEERS_EXTRA, Installed
from bench.sides.onnx_engines import deepsparse_engine, onnxruntime_session

Network = Callable[[Tensor], Tensor]
OPSET = 13
"""Old enough for all of them."""


@dataclass(frozen=True)
class Engine(Installed):
    """`made`: the network of a model and an example. `off`: how far outputs may be from dense PyTorch's, over the
    largest. `images`: it is for nothing else."""

    made: Callable[[nn.Module, Tensor], Network]
    off: float = 1e-4
    images: bool = False


def channels_last(model: nn.Module, x: Tensor) -> Network:
    """PyTorch in its other layout, images in it too."""
    model = model.to(memory_format=torch.channels_last)
    return lambda given: model(given.to(memory_format=torch.channels_last))


def compiled(model: nn.Module, x: Tensor) -> Network:
    """By torch.compile, for this shape."""
    made: Network = torch.compile(model, dynamic=False)
    return made


def onnx_file(model: nn.Module, x: Tensor, folder: Path) -> Path:
    """The model as an ONNX file, input "x", output "y", for the batch of `x`."""
    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The newer export wants an onnx that DeepSparse does not.
        torch.onnx.export(model, (x,), path, input_names=["x"], output_names=["y"], opset_version=OPSET, dynamo=False)
    return path


def onnxruntime(model: nn.Module, x: Tensor) -> Network:
    """A session of its own."""
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime_session(onnx_file(model, x, Path(folder)))
    return lambda given: torch.from_numpy(session.run(None, {"x": given.numpy()})[0])


def _openvino(model: nn.Module, x: Tensor, **settings: Any) -> Network:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        core = openvino.Core()
        made = core.compile_model(
            core.read_model(onnx_file(model, x, Path(folder))), "CPU",
            {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", **settings},
        )  # fmt: skip
    return lambda given: torch.from_numpy(made([given.numpy()])[0])


def openvino(model: nn.Module, x: Tensor) -> Network:
    """As it comes: in bfloat16 where the processor has instructions for it."""
    return _openvino(model, x)


def openvino_float32(model: nn.Module, x: Tensor) -> Network:
    """Told to compute in float32."""
    return _openvino(model, x, INFERENCE_PRECISION_HINT="f32")


def deepsparse(model: nn.Module, x: Tensor) -> Network:
    """Compiled for the batch of `x`."""
    with tempfile.TemporaryDirectory() as folder:
        engine = deepsparse_engine(onnx_file(model, x, Path(folder)), len(x))
    return lambda given: torch.from_numpy(engine.run([given.numpy()])[0])


ENGINES = {
    "PyTorch, channels_last": Engine(channels_last, images=True),
    "PyTorch, compiled": Engine(compiled),
    "onnxruntime": Engine(onnxruntime, modules=("onnxruntime",), install=PEERS_EXTRA),
    "OpenVINO": Engine(openvino, 0.1, modules=("openvino",), install=PEERS_EXTRA),
    "OpenVINO float32": Engine(openvino_float32, modules=("openvino",), install=PEERS_EXTRA),
    "DeepSparse": Engine(deepsparse, modules=("deepsparse",), install=DEEPSPARSE),
}
