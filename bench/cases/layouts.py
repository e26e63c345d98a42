"""The memory formats in which a side is timed, by name."""

from __future__ import annotations

import torch

from lth_sparse.plans.layer_spec import LayerSpec

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def layouts(spec: LayerSpec) -> list[str]:
    """Those that make a difference to a layer."""
    return list(LAYOUTS) if spec.kind == "conv2d" else ["contiguous"]
