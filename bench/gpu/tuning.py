"""Ways to launch the Triton kernels, each compiled, timed on one layer and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any
from unittest import mock

import torch

from bench.cases.layouts import LAYOUTS
from bench.compilers.triton_kernels import SHARED_MEMORY, compiled_layer
from bench.gpu.compile_ahead import compilers
from bench.gpu.precision import set_precision
from bench.gpu.results import say
from bench.sides.sparse import sparse_layer
from bench.timing.gpu import microseconds
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
        mock.patch("bench.compilers.triton_kernels.block_shape", return_value=shape),
    ):
        yield


def _compile(case: tuple[Any, ...]) -> bool:
    """Whether the case compiles, without spilling, for the shared memory that there is."""
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
