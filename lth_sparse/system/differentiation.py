"""Gradients that say that they cannot be differentiated if someone tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function


def only_once(reason: str, compute: Callable[..., Any], *arguments: Any) -> Any:
    """`compute` of `arguments`, in a backward pass: a tensor or several. A second derivative raises
    NotImplementedError with `reason`."""
    # In a backward pass, gradients are enabled only under create_graph=True.
    return _Gradient.apply(reason, compute, *arguments) if torch.is_grad_enabled() else compute(*arguments)


class _Gradient(Function):
    @staticmethod
    def forward(ctx: Any, reason: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        ctx.reason = reason
        return compute(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(ctx.reason)
