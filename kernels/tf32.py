"""TF32: float32 with 10 bits of mantissa, in which tensor cores multiply float32 where PyTorch's settings allow it.

The tensor cores themselves cut the lower bits off, which errs twice as much as rounding, and always towards zero.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether this process runs the kernels in Triton's interpreter, which has no TF32: settled when they are imported."""


def rounding(dtype: torch.dtype, precision: str, architecture: str) -> str:
    """How a kernel has to round its inputs: "" not at all, else as PTX's cvt names it.

    From Hopper on, rounding to even is one instruction (F2FP); ties away from zero, all that Ampere has, are three.
    """
    if dtype != torch.float32 or precision != "tf32" or INTERPRETED:
        return ""
    return "rna" if architecture == "sm_80" else "rn"


@triton.jit
def rounded(tensor, ROUNDING: tl.constexpr):
    """float32 rounded to the nearest TF32; the same tensor where nothing is to be rounded."""
    if ROUNDING == "rn":
        return tl.inline_asm_elementwise(
            "cvt.rn.tf32.f32 $0, $1;", "=r,r", [tensor], dtype=tl.float32, is_pure=True, pack=1
        )
    elif ROUNDING == "rna":
        return tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [tensor], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tensor
