"""What the backends for NVIDIA GPUs have in common: which GPUs can run their kernels, and what they give back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from lth_sparse.backends.base import memory_format

LEAST_CAPABILITY = (8, 0)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def index_of(device: torch.device) -> int:
    """The number of a GPU, "cuda" being the current one."""
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def capability(index: int) -> tuple[int, int]:
    """Of the GPU of that number, such as (9, 0)."""
    return torch.cuda.get_device_capability(index)


def too_old(index: int) -> str:
    """Why the GPU of that number cannot run the kernels, "" if it can."""
    found = capability(index)
    if found >= LEAST_CAPABILITY:
        return ""
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {found[0]}.{found[1]}, and the kernels "
        f"need {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} (Ampere) or newer"
    )


def all_too_old() -> str:
    """Why none of the GPUs can run the kernels, "" if one can."""
    reasons = [too_old(index) for index in range(torch.cuda.device_count())]
    return reasons[0] if all(reasons) else ""


def empty_images(shape: Sequence[int], like: Tensor) -> Tensor:
    """A new tensor in the memory format of `like`. Raises ValueError when its elements are too many for int32."""
    if math.prod(shape) >= 2**31:
        raise ValueError(
            f"input: got one whose result has shape {tuple(shape)}, {math.prod(shape)} elements, expected fewer than "
            "2^31: give fewer images at a time"
        )
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format(like))
