"""The memory formats of images and of a network's weights, by the names that choices, records and tables have."""

from __future__ import annotations

import torch
from torch import nn

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""Of tensors of four dimensions: NCHW and NHWC; any other is contiguous."""


def put_in_format(model: nn.Module, name: str) -> nn.Module:
    """`model`, its parameters of four dimensions laid out anew in the format called `name`, in place.

    1x1 weights too, whose strides `nn.Module.to` leaves as they are: strides are what PyTorch tells a format by.
    """
    for parameter in model.parameters():
        if parameter.dim() == 4:
            data = parameter.detach()
            parameter.data = torch.empty_like(data, memory_format=MEMORY_FORMATS[name]).copy_(data)
    return model
