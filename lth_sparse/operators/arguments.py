"""What the operators are given by whoever calls them through the dispatcher, checked before any backend sees it.

Layers check their input in lth_sparse.ops and call a backend without the dispatcher: a training step does not come by
here unless it is compiled. What lies in the index tensors is for the kernels to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from lth_sparse.backends.base import Plan
from lth_sparse.plans.layer_spec import LayerSpec


def check_forward(plan: Plan, x: Tensor, values: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError where a tensor is not one of a layer of this plan."""
    _output_shape(plan, x.shape)
    _check(plan, x, "x", x.shape)
    _check(plan, values, "values", (plan.pattern.nnz,), x)
    if bias is not None:
        _check(plan, bias, "bias", (plan.spec.out_channels,), x)


def check_grad_input(plan: Plan, grad_out: Tensor, values: Tensor, input_shape: Sequence[int]) -> None:
    """The same; `grad_out` has to be of the output's shape for an input of `input_shape`."""
    _check(plan, grad_out, "grad_out", _output_shape(plan, input_shape))
    _check(plan, values, "values", (plan.pattern.nnz,), grad_out)


def check_grad_weight(plan: Plan, x: Tensor, grad_out: Tensor) -> None:
    """The same."""
    _check(plan, x, "x", x.shape)
    _check(plan, grad_out, "grad_out", _output_shape(plan, x.shape), x)


def _output_shape(plan: Plan, input_shape: Sequence[int]) -> tuple[int, ...]:
    spec, pattern = plan.spec, plan.pattern
    _check_layer(spec)
    if pattern.mask.dtype != torch.bool or pattern.mask.shape != spec.weight_shape:
        given = f"{pattern.mask.dtype} of shape {tuple(pattern.mask.shape)}"
        raise ValueError(f"plan: got a mask {given}, expected torch.bool of shape {spec.weight_shape}")
    for indices, name, size in (
        (pattern.row_offsets, "row_offsets", spec.out_channels + 1),
        (pattern.column_indices, "column_indices", pattern.nnz),
    ):
        _check(plan, indices, name, (size,))
        if indices.dtype != torch.int32:
            raise ValueError(f"plan: got {name} of {indices.dtype}, expected torch.int32")
    linear = spec.kind == "linear"
    if len(input_shape) != (2 if linear else 4) or min(input_shape) < 0 or input_shape[1] != spec.in_channels:
        expected = f"[M, {spec.in_channels}]" if linear else f"[N, {spec.in_channels}, H, W]"
        raise ValueError(f"input: got shape {tuple(input_shape)}, expected {expected}")
    if linear:
        return input_shape[0], spec.out_channels
    height, width = spec.output_size(input_shape[2], input_shape[3])
    if min(height, width) < 1 or (input_shape[0] and not input_shape[2] * input_shape[3]):
        raise ValueError(
            f"input: got shape {tuple(input_shape)}, expected at least a pixel, and no less than the kernel"
        )
    return input_shape[0], spec.out_channels, height, width


@cache
def _check_layer(spec: LayerSpec) -> None:
    sizes = (spec.in_channels, spec.out_channels, spec.groups, *spec.kernel_size, *spec.stride, *spec.dilation)
    if min(sizes) < 1 or min(spec.padding) < 0 or spec.in_channels % spec.groups or spec.out_channels % spec.groups:
        raise ValueError(f"spec: got {spec}, expected positive numbers, and channels that the groups divide")
    if spec.kind == "linear" and spec != LayerSpec("linear", spec.in_channels, spec.out_channels):
        raise ValueError(f"spec: got {spec}, expected a linear layer without kernel, stride, padding and groups")


def _check(plan: Plan, tensor: Tensor, name: str, shape: tuple[int, ...], like: Tensor | None = None) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise ValueError(f"{name}: got layout {tensor.layout}, expected a dense tensor")
    if tensor.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {shape}")
    if tensor.device != plan.pattern.mask.device:
        raise ValueError(f"{name}: got a tensor on {tensor.device}, expected {plan.pattern.mask.device}, as the plan")
    if like is not None and tensor.dtype != like.dtype:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, expected {like.dtype}, as the input")
