"""TF32: float32 with 10 bits of mantissa, in which tensor cores multiply float32 where PyTorch's settings allow it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether this process runs the kernels in Triton's interpreter, which has no TF32: settled when they are imported."""


def rounds(dtype: torch.dtype, precision: str) -> bool:
    """Whether a kernel has to round its inputs."""
    return dtype == torch.float32 and precision == "tf32" and not INTERPRETED


@triton.jit
def rounded(tensor):
    """float32 rounded to the nearest TF32, ties away from zero, as cuDNN and cuBLAS do.

    The tensor cores themselves cut the lower bits off, which errs twice as much, and always towards zero.
    """
    return tl.inline_asm_elementwise(
        "cvt.rna.tf32.f32 $0, $1;", "=r,r", [tensor], dtype=tl.float32, is_pure=True, pack=1
    )
