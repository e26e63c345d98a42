"""What PyTorch multiplies float32 in."""

from __future__ import annotations

from typing import Any

import torch


def set_precision(precision: str) -> torch.dtype:
    """Has PyTorch multiply float32 so; gives the dtype."""
    float32: Any = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = float32  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
