"""What the compilers make of the Triton kernels, on a machine with no GPU: `python -m bench.compiled_kernels`.

The table says for each kernel in each shipped configuration how many registers and how much shared memory it takes,
that nothing is spilled, and how many instructions its inner loop issues for each element that it gathers, which is what
bounds it. The exit status is 1 when a kernel spills or does not fit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.cases.layouts import LAYOUTS
from bench.compilers.triton_kernels import PRECISIONS, SHARED_MEMORY, Kernel, compiled_layer
from lth_sparse.backends.triton import interpreted
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.system.messages import aligned


@dataclass(frozen=True)
class Row:
    """A kernel, and what it was compiled for."""

    architecture: str
    precision: str
    layout: str
    case: str
    kernel: Kernel

    @property
    def fits(self) -> bool:
        """Without spilling, and in the shared memory that there is."""
        return self.kernel.stack == 0 and self.kernel.shared <= SHARED_MEMORY[self.architecture]


def _conv(channels: int, filters: int, **rest: Any) -> LayerSpec:
    return LayerSpec("conv2d", channels, filters, (3, 3), padding=(1, 1), **rest)


# Each reaches other constants: the usual one; the phases of a stride; several images at once; few rows; a linear layer.
CASES = {
    "3x3, 32x32": (_conv(64, 128), (128, 64, 32, 32)),
    "3x3 stride 2": (_conv(64, 64, stride=(2, 2)), (128, 64, 32, 32)),
    "3x3, 4x4": (_conv(64, 64), (32, 64, 4, 4)),
    "3x3, 16 rows": (_conv(16, 16), (16, 16, 8, 8)),
    "linear": (LayerSpec("linear", 512, 64), (64, 512)),
}
USUAL = "3x3, 32x32"


def rows_of(architecture: str) -> list[Row]:
    """Every kernel in every configuration of the architecture; the cases beside the usual one in TF32."""
    rows: dict[tuple[object, ...], Row] = {}
    for precision in PRECISIONS:
        for layout in LAYOUTS:
            for case, (spec, x_shape) in CASES.items():
                if case != USUAL and (precision != "tf32" or (len(x_shape) == 2 and layout != "contiguous")):
                    continue
                for operation, kernels in compiled_layer(
                    architecture, precision, layout, spec, x_shape, bias=True
                ).items():
                    for kernel in kernels:
                        row = Row(architecture, precision, layout, f"{case}, {operation}", kernel)
                        rows[(precision, layout, case, operation, kernel.name)] = row
    return list(rows.values())


def table(rows: Sequence[Row]) -> list[str]:
    """A line a row, under a line of titles."""
    cells = [
        ["gpu", "precision", "layout", "case", "kernel", "registers", "stack", "shared", "instructions/element", ""]
    ]
    for row in rows:
        kernel = row.kernel
        per_element = f"{kernel.per_element:.1f}" if kernel.tile else ""
        verdict = "" if row.fits else "DOES NOT FIT"
        cells.append(
            [row.architecture, row.precision, row.layout, row.case, kernel.name, str(kernel.registers),
            str(kernel.stack),
             str(kernel.shared), per_element, verdict]
        )  # fmt: skip
    return aligned(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles and prints; 1 when something spills or does not fit, 2 when this process cannot compile."""
    parser = argparse.ArgumentParser(prog="python -m bench.compiled_kernels", description="compiles, runs nothing")
    parser.add_argument("architectures", nargs="*", default=list(SHARED_MEMORY), metavar="sm_80 | sm_90")
    chosen = parser.parse_args(arguments).architectures
    if unknown := [name for name in chosen if name not in SHARED_MEMORY]:
        parser.error(f"{unknown[0]}: expected {' or '.join(SHARED_MEMORY)}")
    if interpreted():
        parser.error("TRITON_INTERPRET is set, and kernels that are interpreted are not compiled: unset it")
    with ProcessPoolExecutor() as processes:
        rows = [row for found in processes.map(rows_of, chosen) for row in found]
    print("\n".join(table(rows)))
    wrong = [row for row in rows if not row.fits]
    print(f"{len(rows)} kernels compiled, {len(wrong)} spill or do not fit")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
