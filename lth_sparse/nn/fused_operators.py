"""BatchNorm (+ residual) (+ clamp) (+ 2x2 max-pool) and ReLU + 2x2 max-pool, each as one operator with its autograd.

The kernels are csrc/activation_ops.cpp's; images are float32 [N, C, H, W] on the CPU, contiguous or channels_last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from lth_sparse.backends import cpu_operators
from lth_sparse.backends.base import memory_format
from lth_sparse.nn.clamps import UNBOUNDED, Bounds
from lth_sparse.system.differentiation import only_once

_NO_SECOND = "fused layers have no second derivative: differentiate twice a model that lth_sparse.fuse did not fuse"
UNUSABLE = cpu_operators.UNUSABLE
"""Why the operators cannot be called here; "" when they can."""


def takes(x: Tensor) -> bool:
    """Whether the operators compute `x`, here and now; else PyTorch's own modules do.

    Not what others watch or trace: compilers, modes, torch.func's transforms, forward-mode AD, subclasses.
    """
    return (
        is_unwatched(x) and x.dim() == 4 and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    )


def is_unwatched(x: Tensor) -> bool:
    """Whether `x` is float32 numbers on the CPU, at least one, and nobody else stands in for what is done with it."""
    return (
        not UNUSABLE
        and type(x) is Tensor
        and not torch.jit.is_tracing()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def batch_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor | None, Tensor | None],
    of_batch: bool,
    momentum: float,
    epsilon: float,
    bounds: Bounds,
    pool: bool,
) -> Tensor:
    """batch_norm(x) + residual clamped to `bounds`, max-pooled 2x2 if `pool`, which goes with ReLU and no residual.

    weight, bias, running mean and variance: [C] or None, as torch.nn.functional.batch_norm takes them. of_batch: by the
    batch's statistics, which the running ones, if any, then move towards by `momentum`. Returns x's memory format.
    """
    arguments = (x, weight, bias, residual, *running, of_batch, momentum, epsilon, *bounds, pool)
    output: Tensor = _BatchNorm.apply(*arguments) if torch.is_grad_enabled() else _batch_norm(*arguments)[0]
    return output


def relu_max_pool(x: Tensor, added: Tensor | None = None) -> Tensor:
    """The 2x2 max-pool of relu(x): [N, C, H // 2, W // 2] in x's memory format.

    `added`: [C], a bias that was added to x without autograd's knowledge. It gets its gradient here, which comes along
    with that of x.
    """
    if torch.is_grad_enabled():
        pooled: Tensor = _ReLUMaxPool.apply(x, added)
        return pooled
    output: Tensor = _operators().relu_max_pool(x)[0]
    return output


def _operators() -> Any:
    return torch.ops.lth_sparse_cpu


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(output, mean, inverse deviation, which pixels the pool took)."""
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _operators().batch_norm(
        x, residual, weight, bias, running_mean, running_var, *rest
    )
    return found


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, weight, bias, residual, _, _, of_batch, _, _, *bounds, pool = arguments
        output, mean, inverse_deviation, taken = _batch_norm(*arguments)
        ctx.passes_on = residual is not None and tuple(bounds) == UNBOUNDED
        kept = output if residual is not None and not ctx.passes_on else None
        ctx.save_for_backward(x, kept, weight, bias, mean, inverse_deviation, taken if pool else None)
        ctx.rest = (of_batch, *bounds)
        return output

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        gradients = only_once(
            _NO_SECOND,
            _operators().batch_norm_backward,
            grad_out.contiguous(memory_format=memory_format(x)),
            x,
            *saved,
            *ctx.rest,
        )
        if ctx.passes_on:
            gradients = (*gradients[:-1], grad_out)
        wanted = [g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False)]
        return (*wanted, *(None,) * 8)


class _ReLUMaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor | None) -> Tensor:
        output: Tensor
        output, taken = _operators().relu_max_pool(x)
        ctx.save_for_backward(taken)
        ctx.shape, ctx.layout = x.shape, memory_format(x)
        return output

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        (taken,) = ctx.saved_tensors
        grad_x, grad_added = only_once(
            _NO_SECOND,
            _operators().relu_max_pool_backward,
            grad_out.contiguous(memory_format=ctx.layout),
            taken,
            ctx.shape,
            ctx.layout == torch.channels_last,
            ctx.needs_input_grad[1],
        )
        return grad_x, grad_added if ctx.needs_input_grad[1] else None
