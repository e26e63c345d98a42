"""Triton's kernels, compiled on a machine with no GPU.

The kernels are launched as ever, on tensors that are never read, but for a driver that only says which GPU there is:
Triton then specialises and compiles them exactly as it would on that GPU, and nothing runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.cases.layouts import LAYOUTS
from bench.compilers.machine_code import kernels_in
from lth_sparse.backends.triton import interpreted
from lth_sparse.kernels.configurations import block_shape
from lth_sparse.plans import correlation
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

SHARED_MEMORY = {"sm_80": 99 * 1024, "sm_90": 227 * 1024}
"""Bytes a program may have: of compute capability 8.6 for the Ampere row, which is less than the A100's."""
PRECISIONS = {
    "tf32": (torch.float32, "tf32"),
    "float32": (torch.float32, "ieee"),
    "float64": (torch.float64, "ieee"),
    "float16": (torch.float16, "ieee"),
    "bfloat16": (torch.bfloat16, "ieee"),
}
DENSITY = 0.05


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel. `stack`: bytes of a thread's stack, where what does not fit into registers is spilled.

    `loop`: instructions of its innermost loop. `tile`: elements that a thread gathers in it, 0 where it gathers none.
    """

    name: str
    registers: int
    stack: int
    shared: int
    loop: int
    tile: float

    @property
    def per_element(self) -> float:
        """Instructions that a gathered element costs."""
        return self.loop / self.tile if self.tile else 0.0


@contextmanager
def compiling_for(architecture: str) -> Iterator[list[Kernel]]:
    """Inside, launches compile for the architecture instead of running; the list receives what was compiled."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    if interpreted():
        raise RuntimeError("TRITON_INTERPRET is set: kernels that are interpreted are not compiled, unset it")

    capability = int(architecture.removeprefix("sm_"))

    class Driver:
        """Says which GPU there is: one of its own for each architecture, for Triton remembers what it compiled."""

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return capability

        def get_current_stream(self, device: int) -> int:
            return 0

    found: list[Kernel] = []
    run = JITFunction.run

    def compile_only(self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(self, *arguments, grid=grid, warmup=True, **options)
        found.append(_inspected(compiled, options))
        return compiled

    with (
        mock.patch.object(triton.runtime.driver, "_active", Driver()),
        mock.patch.object(JITFunction, "run", compile_only),
    ):
        yield found


def compiled_layer(
    architecture: str, precision: str, layout: str, spec: LayerSpec, x_shape: tuple[int, ...], bias: bool = False
) -> dict[str, list[Kernel]]:
    """Operation -> the kernels of one layer, compiled for the architecture; with or without a bias."""
    from lth_sparse.kernels.correlation import correlate
    from lth_sparse.kernels.grad_weight import grad_weight

    dtype, multiplied = PRECISIONS[precision]
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < DENSITY
    pattern = Pattern.from_mask(mask)
    size = spec.output_size(*x_shape[2:]) if spec.kind == "conv2d" else ()
    x, output = (
        torch.empty(shape, dtype=dtype, memory_format=LAYOUTS[layout] if len(shape) == 4 else torch.contiguous_format)
        for shape in (x_shape, (x_shape[0], spec.out_channels, *size))
    )
    values = torch.empty(pattern.nnz, dtype=dtype)
    forward = correlation.of_forward(spec, x.shape, output.shape)
    backward = correlation.of_grad_input(spec, output.shape, x.shape)
    blocks = ColumnBlocks.of_forward(pattern, spec, *block_shape(architecture, spec.out_channels // spec.groups))
    transposed = ColumnBlocks.of_grad_input(pattern, spec, *block_shape(architecture, spec.in_channels // spec.groups))
    made = {}
    with compiling_for(architecture) as found:
        shift = torch.empty(spec.out_channels, dtype=dtype) if bias else None
        correlate(x, values, shift, output, blocks, forward, architecture, multiplied)
        made["forward"] = found[:]
        found.clear()
        correlate(output, values, None, x, transposed, backward, architecture, multiplied)
        made["grad_input"] = found[:]
        found.clear()
        grad_weight(x, output, values, blocks, forward, architecture, multiplied)
        made["grad_weight"] = found[:]
    return made


def _inspected(compiled: Any, options: dict[str, Any]) -> Kernel:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        (code,) = kernels_in(path)
    positions = options.get("BLOCK_POSITIONS") or options.get("PIXELS", 0) * options.get("IMAGES", 0)
    tile = options.get("STEP_COLUMNS", 0) * positions / (32 * compiled.metadata.num_warps)
    # The loop over gathered tiles is the longest one.
    longest = max((len(loop.instructions) for loop in code.loops()), default=0)
    return Kernel(
        compiled.metadata.name, code.registers, code.stack, compiled.metadata.shared, longest if tile else 0, tile
    )
