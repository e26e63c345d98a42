"""The memory formats in which a side is timed, by name."""

from __future__ import annotations

import torch

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
