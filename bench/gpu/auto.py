"""One layer on the GPU by the auto backend, beside dense PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.cases.gpu import GpuLayer
from bench.gpu.precision import set_precision
from bench.gpu.results import Results
from bench.sides.dense import dense_layer
from bench.sides.sparse import sparse_layer
from bench.timing.gpu import microseconds


def measure_auto(results: Results, layer: GpuLayer, masks: dict[float, Tensor], device: torch.device) -> None:
    """The auto backend, when it has chosen, against dense, in the command line's layout."""
    set_precision("tf32")
    generator = torch.Generator().manual_seed(0)
    spec = layer.spec
    tensors = [
        torch.randn(shape, generator=generator).to(device)
        for shape in (layer.input_shape, spec.weight_shape, layer.output_shape)
    ]
    if spec.kind == "conv2d":
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    x, weight, grad_out = tensors
    for sparsity, mask in masks.items():
        if results.over():
            return
        sides = {
            "auto": sparse_layer("auto", spec, mask.to(device), x, weight, grad_out),
            "dense": dense_layer(spec, x, weight, grad_out),
        }
        times = microseconds({name: _all_of(list(side.values())) for name, side in sides.items()}, device)
        results.found["auto"].append({"layer": layer.name, "sparsity": sparsity, "microseconds": times})
    results.write()


def _all_of(calls: list[Callable[[], object]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run
