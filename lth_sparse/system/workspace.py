"""Memory that a kernel call needs while it runs: one piece a call, from PyTorch's caching allocator."""

from __future__ import annotations

import torch
from torch import Tensor

_ALIGNMENT = 256


def workspace(device: torch.device, *parts: tuple[int, torch.dtype]) -> list[Tensor]:
    """Flat tensors of these (elements, dtype) with anything in them.

    It is freed when the caller returns, and the allocator, which knows streams, threads and CUDA graphs, hands the same
    piece out again at the next call: a buffer of our own would have to be as careful as that to be kept.
    """
    sizes = [-(-elements * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT for elements, dtype in parts]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
    return [
        piece[: elements * dtype.itemsize].view(dtype)
        for piece, (elements, dtype) in zip(buffer.split(sizes), parts, strict=True)
    ]
