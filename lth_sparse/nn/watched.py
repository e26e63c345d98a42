"""Who would see that modules are not computed one by one."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def hooked(module: nn.Module) -> bool:
    """Whether somebody sees what goes into `module`, or comes out."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_watched(module: nn.Module, followers: Iterable[nn.Module]) -> bool:
    """Whether somebody sees what comes out of `module`, or of one of those that are computed with it."""
    return _has_any_global_hook() or hooked(module) or any(map(hooked, followers))
