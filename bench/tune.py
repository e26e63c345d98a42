"""Chooses how the Triton kernels are launched on the GPU at hand, and rewrites its row of the table: `make tune`.

Each way to launch is timed on one layer, 128 channels of 3 x 3 at 16 x 16, batch 128, 95 % sparsity, in each layout and
precision; then the number of rows in a block is chosen by the sum of its best times. Everything is compiled beforehand,
in parallel. `--rehearse` does the same without a GPU, with two candidates on a tiny layer, and writes to another file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.gpu import say, set_precision
from lth_sparse import environment
from lth_sparse.backends.base import LayerSpec
from lth_sparse.kernels import configurations
from lth_sparse.kernels.configurations import BlockShape, Launch

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


def tuned(row: str, device: torch.device, layer: Any, shapes: Sequence[BlockShape], launches: Any) -> dict[str, Any]:
    """The new row of the table."""
    precisions = TUNED_IN if device.type == "cuda" else {"ieee": "float32"}
    best: dict[BlockShape, dict[str, tuple[float, Launch]]] = {}
    for shape in shapes:
        cases = [
            (row, TUNED_IN[precision], layout, layer, shape, operation, launch)
            for operation, ways in launches.items()
            for launch, layout, precision in product(ways, configurations.LAYOUTS, precisions)
        ]
        if device.type == "cuda":
            with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
                compiles = list(processes.map(_compile, cases, chunksize=4))
            cases = [case for case, fits in zip(cases, compiles, strict=True) if fits]
        found: dict[str, tuple[float, Launch]] = {}
        for _, measured_in, layout, _, _, operation, launch in cases:
            (precision,) = [name for name, timed_as in precisions.items() if timed_as == measured_in]
            took = timed(operation, measured_in, layout, shape, launch, layer, device)
            key = f"{operation}/{layout}/{precision}"
            if key not in found or took < found[key][0]:
                found[key] = took, launch
        best[shape] = found
        for key, (took, launch) in found.items():
            say(f"{shape.block_rows} rows, {key}: {took:.1f} us with {launch}")
    complete = [shape for shape in shapes if len(best[shape]) == len(launches) * 2 * len(precisions)]
    shape = min(complete, key=lambda each: sum(took for took, _ in best[each].values()))
    entry = dict(configurations.table()[row])
    names = environment.describe(device, "")
    entry["tuned_on"] = f"{names['device']}, torch {names['torch']}, commit {names['commit']}"
    entry["blocks"] = shape._asdict()
    entry["launches"] = dict(entry["launches"])
    for key, (_, launch) in best[shape].items():
        fields = launch._asdict()
        if key.startswith("grad_weight"):
            del fields["positions_first"]
        entry["launches"][key] = fields
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description="rewrites kernels/configurations.json")
    parser.add_argument("--rehearse", type=Path, metavar="FILE", help="without a GPU: the same steps, written to FILE")
    rehearsed: Path | None = parser.parse_args(arguments).rehearse
    if rehearsed is not None:
        os.environ["TRITON_INTERPRET"] = "1"
        row, device = configurations.INTERPRETER, torch.device("cpu")
        ways = {operation: [Launch(4096, 1, 1, first) for first in (True, False)] for operation in LAUNCHES}
        entry = tuned(row, device, TINY, BLOCKS[:1], ways)
    elif torch.cuda.is_available():
        row, device = configurations.architecture(torch.cuda.get_device_capability()), torch.device("cuda")
        entry = tuned(row, device, LAYER, BLOCKS, LAUNCHES)
    else:
        parser.error("there is no GPU: run it where there is one, or give --rehearse FILE")
    path = rehearsed if rehearsed is not None else configurations.PATH
    configurations.write({**configurations.table(), row: entry}, path)
    say(f"{row} of {path} is tuned on {entry['tuned_on']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
