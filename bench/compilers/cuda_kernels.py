"""What is read from the machine code that nvcc made of the CUDA kernels."""

from __future__ import annotations

import re

from bench.compilers.machine_code import Kernel

GATHERING = ("correlation_kernel", "grad_weight_kernel")


def readable(mangled: str) -> tuple[str, str]:
    """(name, arithmetic) of a kernel: "correlation_kernel" and "Tf32"."""
    name = re.search(r"\d+([a-z]+(?:_[a-z]+)*_kernel)", mangled)
    exact = re.search(r"ExactI([fd])E", mangled)
    other = re.search(r"_kernelINS0_(6PairedINS0_)?\d+(Tf32|Float16|Bfloat16)E", mangled)
    pairs = ", pairs" if other and other[1] else ""
    arithmetic = {"f": "float32", "d": "float64"}[exact[1]] if exact else other[2] + pairs if other else ""
    return name[1] if name else mangled, arithmetic


def per_fragment(kernel: Kernel) -> float:
    """Instructions of an innermost loop for each fragment: a product in TF32 takes one, in half precision two."""
    loops = [loop for loop in kernel.loops() if loop.count("HMMA")]
    fragments = {loop: loop.count("HMMA") * (2 if loop.count("HMMA.16816") else 1) for loop in loops}
    return min((len(loop.instructions) / fragments[loop] for loop in loops), default=0.0)
