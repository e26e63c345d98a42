"""Autograd's functions below an operator: also under torch.func's transforms, and gradients that have no second one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function, forward_ad
from torch.autograd.function import _SingleLevelFunction


def apply(function: type[Function], *arguments: Any) -> Any:
    """`function.apply`, for the one transform of torch.func that is asking, if one is.

    Function.apply would hand the whole call to torch.func. An operator is called anew for each transform instead, as
    PyTorch's own are, so that its autograd kernel has but one to serve.
    """
    if not torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    with enable_single_level_autograd_function():
        return _of_one_level(function).apply(*arguments)


@cache
def _of_one_level(function: type[Function]) -> Any:
    own = {name: staticmethod(getattr(function, name)) for name in ("forward", "backward", "jvp")}
    return type(function.__name__, (_SingleLevelFunction,), own)


@contextmanager
def for_outer_transforms() -> Iterator[None]:
    """Inside a Function's forward: what is called is differentiated by the transforms around this one, if they do.

    forward runs without gradients, which they would take for the user's wish.
    """
    if torch._C._are_functorch_transforms_active():
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            yield
    else:
        yield


def only_once(reason: str, compute: Callable[..., Any], *arguments: Any) -> Any:
    """`compute` of `arguments`, in a backward pass: a tensor or several. A second derivative raises
    NotImplementedError with `reason`."""
    # In a backward pass, gradients are enabled only under create_graph=True.
    if not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
        return compute(*arguments)
    return apply(_Gradient, reason, compute, *arguments)


class _Gradient(Function):
    @staticmethod
    def forward(ctx: Any, reason: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        ctx.reason = reason
        with for_outer_transforms():
            return compute(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(ctx.reason)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(ctx.reason)
