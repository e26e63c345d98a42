"""The memory formats of images and of a network's weights, by the names that choices, records and tables have."""

from __future__ import annotations

import torch
from torch import nn

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""Of tensors of four dimensions: NCHW and NHWC; any other is contiguous."""


def put_in_format(model: nn.Module, name: str) -> nn.Module:
    """`model`, its parameters of four dimensions laid out anew in the format called `name`, in place.

    `nn.Module.to` leaves a weight as it is where both formats agree but for strides, as for 1x1 kernels, and strides
    are what PyTorch goes by: a network would compute otherwise than one that was never in the other format.
    """
    for parameter in model.parameters():
        if parameter.dim() == 4:
            data = parameter.detach()
            parameter.data = torch.empty_like(data, memory_format=MEMORY_FORMATS[name]).copy_(data)
    return model
