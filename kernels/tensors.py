"""Tensors as the kernels address them."""

from __future__ import annotations

import torch
from torch import Tensor


def steps_of(tensor: Tensor) -> tuple[int, int, int, int]:
    """Elements from one image, channel, row and column to the next; a linear layer has images of one pixel."""
    if tensor.dim() == 2:
        return tensor.stride(0), tensor.stride(1), 0, 0
    image, channel, row, column = tensor.stride()
    return image, channel, row, column


def layout_of(tensor: Tensor) -> str:
    """Whether neighbouring elements are channels of one pixel ("channels_last") or pixels ("contiguous")."""
    return "channels_last" if tensor.stride(1) == 1 else "contiguous"


def multiplied_in(dtype: torch.dtype, precision: str) -> str:
    """The precision in the table of configurations: that of float32, "half" or "double"."""
    return precision if dtype == torch.float32 else "double" if dtype == torch.float64 else "half"
