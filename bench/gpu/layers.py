"""One layer on the GPU: dense PyTorch and each backend, in both layouts, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.cases.gpu import GpuLayer
from bench.cases.layouts import LAYOUTS
from bench.gpu.precision import set_precision
from bench.gpu.results import Results
from bench.sides.dense import dense_gradients, dense_layer
from bench.sides.sparse import sparse_layer
from bench.timing.gpu import microseconds
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.verification.judgement import relative


def dense_calls(spec: LayerSpec, x: Tensor, weight: Tensor, grad_out: Tensor) -> dict[str, Callable[[], object]]:
    """PyTorch's own operators: each alone, and both gradients in one call, as autograd makes it."""
    return {**dense_layer(spec, x, weight, grad_out), **dense_gradients(spec, x, weight, grad_out)}


def measure_layer(
    results: Results,
    layer: GpuLayer,
    precision: str,
    masks_of: dict[str, dict[float, Tensor]],
    backends: Sequence[str],
    device: torch.device,
    plans: dict[tuple[Any, ...], Any],
) -> None:
    """Rows of one layer in one precision: dense in both layouts, then every mask and backend in both layouts.

    plans: what was packed for a backend, layer and mask; to be used again, and added to.
    """
    dtype = set_precision(precision)
    spec, generator = layer.spec, torch.Generator().manual_seed(0)
    x = torch.randn(layer.input_shape, generator=generator)
    weight = torch.randn(spec.weight_shape, generator=generator) / x[0].numel() ** 0.5
    grad_out = torch.randn(layer.output_shape, generator=generator)
    formats = LAYOUTS if spec.kind == "conv2d" else {"contiguous": torch.contiguous_format}
    for layout, memory_format in formats.items():
        here = [tensor.to(device, dtype).contiguous(memory_format=memory_format) for tensor in (x, weight, grad_out)]
        images, dense_weight, gradients = here
        times = microseconds(dense_calls(spec, images, dense_weight, gradients), device)
        row = {"layer": layer.name, "precision": precision, "layout": layout, "side": "dense"}
        results.found["layers"].append(row | {"microseconds": times, "total": times["forward"] + times["backward"]})
        for kind, masks in masks_of.items():
            for sparsity, mask in masks.items():
                if results.over():
                    return
                mask = mask.to(device)
                about = row | {"masks": kind, "sparsity": sparsity, "density": float(mask.float().mean())}
                for backend in backends:
                    try:
                        key = backend, layer.name, kind, sparsity
                        if key not in plans:
                            plans[key] = registry.get(backend).pack(Pattern.from_mask(mask), spec)
                        side = sparse_layer(backend, spec, mask, images, dense_weight, gradients, plans[key])
                        times = microseconds(side, device)
                        error, dense_error = _errors(spec, side, mask, images, dense_weight, gradients)
                    except Exception as failure:  # The other backends go on.
                        results.failed(f"{backend} on {layer.name} in {precision}, {layout}, {sparsity:.0%}", failure)
                        continue
                    results.found["layers"].append(
                        about
                        | {"side": backend, "microseconds": times, "total": sum(times.values())}
                        | {"error": error, "dense_error": dense_error}
                    )
    results.write()


def _errors(
    spec: LayerSpec, side: Any, mask: Tensor, x: Tensor, weight: Tensor, grad_out: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Operation -> the relative error against float64 of ours, and of dense PyTorch in the same precision."""
    masked = weight * mask
    dense = dense_calls(spec, x, masked, grad_out)
    exact = dense_calls(spec, x.double(), masked.double(), grad_out.double())
    ours, theirs = {}, {}
    for operation, call in side.items():
        expected, found = exact[operation](), dense[operation]()
        if operation == "grad_weight":
            expected, found = expected[mask], found[mask]
        ours[operation] = relative(call(), expected)
        theirs[operation] = relative(found, expected)
    return ours, theirs
