"""One buffer a stream for what a kernel call needs while it runs, so that no call allocates."""

from __future__ import annotations

import torch
from torch import Tensor

_ALIGNMENT = 256
_buffers: dict[tuple[torch.device, int], Tensor] = {}


def workspace(device: torch.device, *parts: tuple[int, torch.dtype]) -> list[Tensor]:
    """Flat tensors of these (elements, dtype) with anything in them, valid until the next call on this stream.

    Kernels of one stream run one after another, so they can share the buffer. While a CUDA graph is captured it is
    allocated instead: the graph keeps it, and a shared buffer that grows later would be freed under its replays.
    """
    sizes = [-(-elements * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT for elements, dtype in parts]
    buffer = _buffer(sum(sizes), device)
    return [
        piece[: elements * dtype.itemsize].view(dtype)
        for piece, (elements, dtype) in zip(buffer.split(sizes), parts, strict=True)
    ]


def _buffer(size: int, device: torch.device) -> Tensor:
    """At least `size` bytes; exactly those."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.empty(size, dtype=torch.uint8, device=device)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    buffer = _buffers.get(key)
    if buffer is None or len(buffer) < size:
        # Allocated on that stream, so the allocator gives the old one's memory to later work of the same stream only.
        buffer = _buffers[key] = torch.empty(size, dtype=torch.uint8, device=device)
    return buffer[:size]
