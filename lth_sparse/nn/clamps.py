"""Which calls clamp a tensor, as ReLU and ReLU6 do, and to what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Bounds = tuple[float | None, float | None]
"""What a number is at least and at most; None where nothing bounds it. As torch.clamp takes them."""
UNBOUNDED: Bounds = (None, None)
RELU: Bounds = (0.0, None)
RELU6: Bounds = (0.0, 6.0)

Clamp = tuple[Bounds, bool]
"""The bounds, and whether the input itself is changed."""


def _relu(inplace: bool = False) -> Clamp:
    return RELU, inplace


def _relu6(inplace: bool = False) -> Clamp:
    return RELU6, inplace


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Clamp:
    return (float(min_val), float(max_val)), inplace


_CALLS: dict[Any, Callable[..., Clamp]] = {
    torch.relu: lambda: (RELU, False),
    torch.relu_: lambda: (RELU, True),
    F.relu: _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
}


def of_call(function: Any, *args: Any, **kwargs: Any) -> Clamp | None:
    """What `function` does to its first argument, given the others; None where it is no clamp that is known here."""
    known = _CALLS.get(function)
    try:
        return known(*args, **kwargs) if known else None
    except (TypeError, ValueError):  # Other arguments than it has, which is for it to say.
        return None
