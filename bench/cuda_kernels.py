"""What nvcc made of the CUDA kernels, on a machine with no GPU: `python -m bench.cuda_kernels`.

Reads the extension that setup.py built. The table says for each kernel on each architecture how many registers it
takes, that nothing is spilled, that tensor cores and asynchronous copies are in it, and how many instructions its
innermost loop issues for each fragment (8 columns x 8 positions) that it gathers for the tensor cores. The exit status
is 1 when something of that does not hold, 2 when there is no extension.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.machine_code import Kernel, kernels_in
from lth_sparse.backends import extension
from lth_sparse.system.messages import aligned

TITLES = ["gpu", "kernel", "arithmetic", "registers", "stack", "tensor cores", "copies", "instructions/fragment", ""]
ARCHITECTURES = ("sm_80", "sm_90")
GATHERING = ("correlation_kernel", "grad_weight_kernel")
MOST_REGISTERS = {True: 128, False: 255}
"""For kernels that multiply on tensor cores, of which a multiprocessor is to have two thread blocks; for others."""


def row_of(kernel: Kernel) -> list[str]:
    """The kernel's cells, the last one empty when all is well."""
    name, arithmetic = readable(kernel.name)
    tensor_cores = not arithmetic.startswith("float")
    products, copies = kernel.count("HMMA"), kernel.count("LDGSTS")
    wrong = []
    if kernel.stack or kernel.count("LDL") or kernel.count("STL"):
        wrong.append("SPILLS")
    if name in GATHERING:
        if tensor_cores and not products:
            wrong.append("NO TENSOR CORES")
        if not copies:
            wrong.append("NO ASYNCHRONOUS COPIES")
        if kernel.registers > MOST_REGISTERS[tensor_cores]:
            wrong.append("TOO MANY REGISTERS")
    each = per_fragment(kernel)
    return [
        kernel.architecture, name, arithmetic, str(kernel.registers), str(kernel.stack), str(products or ""),
        str(copies or ""), f"{each:.1f}" if each else "", ", ".join(wrong),
    ]  # fmt: skip


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_kernels", description="reads, runs nothing")
    parser.add_argument(
        "extension", nargs="?", type=Path, default=extension.built("_cuda"), help="by default the one in use"
    )
    chosen = parser.parse_args(arguments)
    if chosen.extension is None or not chosen.extension.exists():
        parser.error("there is no built CUDA extension: see LTH_SPARSE_CUDA in docs/gpu-kernels.md")
    kernels = kernels_in(chosen.extension)
    rows = sorted((row_of(kernel) for kernel in kernels), key=lambda row: row[:3])
    print("\n".join(aligned([TITLES, *rows])))
    missing = [name for name in ARCHITECTURES if name not in {kernel.architecture for kernel in kernels}]
    wrong = [row for row in rows if row[-1]]
    print(
        f"{len(rows)} kernels, {len(wrong)} of them wrong"
        + "".join(f"; no machine code for {name}" for name in missing)
    )
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
