"""Chooses how the Triton kernels are launched on the GPU at hand, and rewrites its row of the table: `make tune`.

Each way to launch is timed on one layer, 128 channels of 3 x 3 at 16 x 16, batch 128, 95 % sparsity, in each layout and
precision; then the number of rows in a block is chosen by the sum of its best times. Everything is compiled beforehand,
in parallel. `--rehearse` does the same without a GPU, with two candidates on a tiny layer.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.gpu import compilers, say, set_precision
from lth_sparse.kernels import configurations
from lth_sparse.kernels.configurations import BlockShape, Launch
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.storage import environment

TUNED_IN = {"tf32": "tf32", "ieee": "float32", "half": "bfloat16"}
"""Precisions of the table that are tuned -> what is timed for them. Float64 is there for gradients to be checked."""
LAYER = (LayerSpec("conv2d", 128, 128, (3, 3), padding=(1, 1)), (128, 128, 16, 16))
TINY = (LayerSpec("conv2d", 16, 16, (3, 3), padding=(1, 1)), (2, 16, 4, 4))
DENSITY = 0.05
BLOCKS = [BlockShape(rows, 32) for rows in (32, 64, 128)]
LAUNCHES = {
    "correlation": [Launch(*each) for each in product((64, 128), (4, 8), (1, 2, 3), (True, False))],
    "grad_weight": [Launch(*each) for each in product((32, 64, 128), (4, 8), (1, 2))],
}


def precisions_of(device: torch.device) -> dict[str, str]:
    """What is tuned on the device: of a rehearsal, one."""
    return TUNED_IN if device.type == "cuda" else {"ieee": "float32"}


@contextmanager
def launching(shape: BlockShape, operation: str, launch: Launch) -> Iterator[None]:
    """Inside, masks are packed for `shape`, and `operation` is launched so."""
    from lth_sparse.backends import triton as backend
    from lth_sparse.kernels import correlation, grad_weight

    ordinary = configurations.launch_of

    def chosen(row: str, name: str, layout: str, precision: str, positions: int, blocks: int = 1) -> Launch:
        return launch if name == operation else ordinary(row, name, layout, precision, positions, blocks)

    with (
        mock.patch.object(correlation, "launch_of", chosen),
        mock.patch.object(grad_weight, "launch_of", chosen),
        mock.patch.object(backend, "block_shape", return_value=shape),
        mock.patch("bench.compiled_kernels.block_shape", return_value=shape),
    ):
        yield


def _compile(case: tuple[Any, ...]) -> bool:
    """Whether the case compiles, without spilling, for the shared memory that there is."""
    from bench.compiled_kernels import SHARED_MEMORY, compiled_layer

    architecture, precision, layout, layer, shape, operation, launch = case
    try:
        with launching(shape, operation, launch):
            kernels = [
                each for found in compiled_layer(architecture, precision, layout, *layer).values() for each in found
            ]
    except Exception:  # Triton raises what it likes for a tile that it cannot lay out: then it is no candidate.
        return False
    return all(kernel.stack == 0 and kernel.shared <= SHARED_MEMORY[architecture] for kernel in kernels)


def timed(
    operation: str, precision: str, layout: str, shape: BlockShape, launch: Launch, layer: Any, device: torch.device
) -> float:
    """Microseconds of the operation; of both directions of a correlation together."""
    from bench.compiled_kernels import LAYOUTS
    from bench.gpu_timing import microseconds
    from bench.sides import sparse_layer

    dtype, (spec, x_shape) = set_precision(precision), layer
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(spec.weight_shape, generator=generator) < DENSITY).to(device)
    x, weight = (torch.randn(size, generator=generator).to(device, dtype) for size in (x_shape, spec.weight_shape))
    grad_out = torch.randn(x_shape[0], spec.out_channels, *spec.output_size(*x_shape[2:]), generator=generator)
    x, grad_out = (images.to(device, dtype).contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    with launching(shape, operation, launch):
        side = sparse_layer("triton", spec, mask, x, weight, grad_out)
        parts = ("grad_weight",) if operation == "grad_weight" else ("forward", "grad_input")
        return sum(microseconds({name: side[name] for name in parts}, device).values())


def tuned(
    row: str, device: torch.device, layer: Any, shape: BlockShape, launches: Mapping[str, Sequence[Launch]]
) -> dict[str, tuple[float, Launch]]:
    """Key of the table -> the least microseconds, and the launch that takes them, with blocks of this shape."""
    precisions = precisions_of(device)
    cases = [
        (precision, layout, operation, launch)
        for operation, ways in launches.items()
        for launch, layout, precision in product(ways, configurations.LAYOUTS, precisions)
    ]
    if device.type == "cuda":
        compiled = [(row, TUNED_IN[precision], layout, layer, shape, *rest) for precision, layout, *rest in cases]
        with compilers() as processes:
            fits = list(processes.map(_compile, compiled, chunksize=4))
        cases = [case for case, fit in zip(cases, fits, strict=True) if fit]
    found: dict[str, tuple[float, Launch]] = {}
    for precision, layout, operation, launch in cases:
        took = timed(operation, precisions[precision], layout, shape, launch, layer, device)
        key = f"{operation}/{layout}/{precision}"
        if key not in found or took < found[key][0]:
            found[key] = took, launch
    for key, (took, launch) in found.items():
        say(f"blocks of {shape.block_rows} rows, {key}: {took:.1f} us with {launch}")
    return found


def entry_of(
    row: str, device: torch.device, shape: BlockShape, best: Mapping[str, tuple[float, Launch]]
) -> dict[str, Any]:
    """The row of the table with these launches in the place of its own."""
    here = environment.describe(device, "")
    launches = dict(configurations.table()[row]["launches"])
    for key, (_, launch) in best.items():
        launches[key] = launch._asdict()
        if key.startswith("grad_weight"):
            del launches[key]["positions_first"]
    return {
        **configurations.table()[row],
        "tuned_on": f"{here['device']}, torch {here['torch']}, commit {here['commit']}",
        "blocks": shape._asdict(),
        "launches": launches,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes and writes, after each shape of blocks that is the best so far."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description="rewrites kernels/configurations.json")
    parser.add_argument("--out", type=Path, default=configurations.PATH, metavar="FILE", help="the table to write")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: the same steps; needs --out")
    chosen = parser.parse_args(arguments)
    if chosen.rehearse and chosen.out == configurations.PATH:
        parser.error("a rehearsal measures nothing that belongs into the table: give --out FILE")
    layer, shapes, launches = LAYER, BLOCKS, LAUNCHES
    if chosen.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
        row, device, layer, shapes = configurations.INTERPRETER, torch.device("cpu"), TINY, BLOCKS[:1]
        launches = {operation: [Launch(4096, 1, 1, first) for first in (True, False)] for operation in LAUNCHES}
    elif torch.cuda.is_available():
        row, device = configurations.architecture(torch.cuda.get_device_capability()), torch.device("cuda")
    else:
        parser.error("there is no GPU: run it where there is one, or give --rehearse")
    least = math.inf
    for shape in shapes:
        best = tuned(row, device, layer, shape, launches)
        total = sum(took for took, _ in best.values())
        if len(best) < len(launches) * len(configurations.LAYOUTS) * len(precisions_of(device)):
            say(
                f"blocks of {shape.block_rows} rows: some operation has no way to be launched, so they are no candidate"
            )
        elif total < least:
            least = total
            entry = entry_of(row, device, shape, best)
            configurations.write({**configurations.table(), row: entry}, chosen.out)
            say(f"{row} of {chosen.out}: blocks of {shape.block_rows} rows")
    if least == math.inf:
        say("no way to launch the kernels compiled: python -m bench.compiled_kernels says why")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
