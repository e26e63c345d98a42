"""The sparse operators and their autograd: the only file that knows the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from lth_sparse.backends.base import Backend, BackendError, Plan

_AUTOCAST_FROM = {torch.float16, torch.bfloat16, torch.float32}


def conv2d(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    plan: Plan,
    backend: Backend,
    input_padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    padding_mode: str = "zeros",
) -> Tensor:
    """Sparse convolution of x [N, C_in, H, W] or [C_in, H, W] with values [nnz] and bias [C_out].

    `input_padding` (left, right, top, bottom) is done in `padding_mode`, as nn.Conv2d names it, before the
    operator, which pads with zeros by `plan.spec.padding` in addition. Returns [N, C_out, H_out, W_out], or
    without N. Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
    """
    spec = plan.spec
    if x.dim() not in (3, 4) or x.shape[-3] != spec.in_channels:
        channels = spec.in_channels
        raise ValueError(f"input: got shape {tuple(x.shape)}, expected [N, {channels}, H, W] or [{channels}, H, W]")
    x, values, bias = _same_dtype(x, values, bias, plan, backend)
    images = x if x.dim() == 4 else x.unsqueeze(0)
    if any(input_padding):
        images = F.pad(images, input_padding, mode="constant" if padding_mode == "zeros" else padding_mode)
    height, width = images.shape[2:]
    if min(spec.output_size(height, width)) < 1:
        raise ValueError(
            f"input: got shape {tuple(x.shape)}, {height} x {width} before zero padding of {spec.padding}, "
            f"expected no less than the kernel of {spec.kernel_size} with dilation {spec.dilation}"
        )
    output: Tensor = _SparseLayerFunction.apply(images, values, bias, plan, backend)
    return output if x.dim() == 4 else output.squeeze(0)


def linear(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: Backend) -> Tensor:
    """Sparse x @ weight.T + bias of x [..., in] with values [nnz] and bias [out]: [..., out].

    Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
    """
    spec = plan.spec
    if x.dim() < 1 or x.shape[-1] != spec.in_channels:
        raise ValueError(f"input: got shape {tuple(x.shape)}, expected [..., {spec.in_channels}]")
    x, values, bias = _same_dtype(x, values, bias, plan, backend)
    output: Tensor = _SparseLayerFunction.apply(x.reshape(-1, spec.in_channels), values, bias, plan, backend)
    return output.view(*x.shape[:-1], spec.out_channels)


def _same_dtype(
    x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: Backend
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast as autocast asks for, as PyTorch's own layers do; then refuse what still differs."""
    if x.device != values.device:
        raise ValueError(f"input: got a tensor on {x.device}, expected {values.device}, where the layer is")
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and {x.dtype, values.dtype} <= _AUTOCAST_FROM:
        dtype = torch.get_autocast_dtype(device_type)
        supported, reason = backend.supports(plan.spec, dtype, x.device)
        if not supported:
            raise BackendError(f'backend "{backend.name}" cannot compute under autocast: {reason}')
        x, values, bias = x.to(dtype), values.to(dtype), None if bias is None else bias.to(dtype)
    if x.dtype != values.dtype:
        raise TypeError(f"input: got dtype {x.dtype}, expected {values.dtype}, the layer's own")
    return x, values, bias


class _SparseLayerFunction(Function):
    """One layer's forward and backward pass, for any backend."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, backend: Backend) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.plan, ctx.backend = plan, backend
        return backend.forward(x, values, plan, bias)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        plan, backend = ctx.plan, ctx.backend
        grad_x = grad_values = grad_bias = None
        needs_x, needs_values, needs_bias = ctx.needs_input_grad[:3]
        with torch.no_grad():
            if needs_x:
                grad_x = backend.grad_input(grad_out, values, plan, tuple(x.shape))
            if needs_values:
                grad_values = backend.grad_weight(x, grad_out, plan)
            if needs_bias:
                grad_bias = grad_out.sum((0, 2, 3) if plan.spec.kind == "conv2d" else 0)
        gradients: tuple[Tensor | None, ...] = (grad_x, grad_values, grad_bias)
        if torch.is_grad_enabled():
            # With create_graph=True, differentiating a gradient must end in a refusal, not in silence.
            gradients = tuple(
                None if grad is None else _RefuseSecondDerivative.apply(grad, grad_out, x, values) for grad in gradients
            )
        return (*gradients, None, None)


class _RefuseSecondDerivative(Function):
    """Passes a gradient through, and says that it cannot be differentiated if someone tries."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *sources: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise NotImplementedError(
            "sparse layers have no second derivative: use lth_sparse.densify(model) to differentiate twice"
        )
