"""What an H200 could make of the GPU kernels: `python -m bench.cost_model`. A model; nothing of it was measured.

For each layer and sparsity, forward pass and both gradients together: the operations and bytes of dense PyTorch and of
the plan, and the least time that each would take if all it needed were one resource: the tensor cores, the memory, the
instructions, shared memory. What the gather issues is counted in the compiled code (bench/compiled_kernels.py for
Triton, bench/cuda_kernels.py), so it follows the kernels; overlaps, caches, latencies, the copies into shared memory
and launches are left out. The largest is the floor: beside it, a
measured time has something to stand. Masks are random; --tickets takes those of trained networks (minutes on a CPU).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compiled_kernels import compiled_layer
from bench.cuda_kernels import GATHERING, per_fragment, readable
from bench.gpu_cases import LAYERS, SPARSITIES, GpuLayer
from bench.machine_code import kernels_in
from bench.tickets import tickets
from lth_sparse.backends import extension
from lth_sparse.backends.triton import interpreted
from lth_sparse.kernels.configurations import block_shape
from lth_sparse.plans.channel_chunks import BLOCK_ROWS, DEPTH, ChunkedBlocks
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.pattern import Pattern
from lth_sparse.system.messages import aligned

ARCHITECTURE = "sm_90"
GPU = "H200, by its datasheet"
FLOPS = {"tf32": 495e12, "float32": 67e12, "bfloat16": 989e12}
"""Dense peak of each precision, operations a second."""
BYTES_A_SECOND = 4.8e12
INSTRUCTIONS_A_SECOND = 132 * 4 * 1.98e9
"""Of warps: four schedulers a multiprocessor, one instruction a cycle each."""
SHARED_LOADS_A_SECOND = 132 * 1.98e9
"""Of warps, from shared memory, without a collision: one a cycle and multiprocessor."""
FRAGMENT = 64
"""Elements that the CUDA kernels gather for a tensor core at once: 8 columns x 8 positions, by two loads of a warp."""
OPERATIONS = ("forward", "grad_input", "grad_weight")
MICRO = 1e6


@dataclass(frozen=True)
class Floor:
    """Operations and bytes, and the least microseconds by each resource."""

    flops: float
    bytes: float
    tensor_cores: float
    memory: float
    instructions: float
    shared: float = 0.0

    @property
    def microseconds(self) -> float:
        """By the resource that is needed most."""
        return max(self.tensor_cores, self.memory, self.instructions, self.shared)


def sizes(layer: GpuLayer) -> tuple[int, int, int]:
    """(positions of the output, elements of the input, elements of the output)."""
    spec, shape = layer.spec, layer.input_shape
    height, width = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else (1, 1)
    positions = shape[0] * height * width
    return positions, torch.Size(shape).numel(), positions * spec.out_channels


def dense_floor(layer: GpuLayer, precision: str) -> Floor:
    """Dense PyTorch: each operation reads two of input, weight and output, and writes the third."""
    positions, inputs, outputs = sizes(layer)
    weights = torch.Size(layer.spec.weight_shape).numel()
    flops = 3 * 2.0 * positions * weights
    moved = 3.0 * (inputs + outputs + weights) * _bytes(precision)
    return Floor(flops, moved, flops / FLOPS[precision] * MICRO, moved / BYTES_A_SECOND * MICRO, 0.0)


def plan_floor(layer: GpuLayer, mask: Tensor, precision: str, per_element: dict[str, float]) -> Floor:
    """The plan of `mask`; `per_element`: the instructions that each operation issues for a gathered element."""
    spec, pattern = layer.spec, Pattern.from_mask(mask)
    blocks = ColumnBlocks.of_forward(pattern, spec, *block_shape(ARCHITECTURE, spec.out_channels))
    transposed = ColumnBlocks.of_grad_input(pattern, spec, *block_shape(ARCHITECTURE, spec.in_channels))
    positions, inputs, outputs = sizes(layer)
    flops = moved = issued = 0.0
    for operation in OPERATIONS:
        plan = transposed if operation == "grad_input" else blocks
        gathered = float(positions) * plan.columns.numel()
        flops += 2 * gathered * plan.block_rows
        moved += (inputs + outputs + 2 * plan.slots + pattern.nnz) * _bytes(precision)
        issued += gathered * per_element[operation] / 32
    return Floor(
        flops, moved, flops / FLOPS[precision] * MICRO, moved / BYTES_A_SECOND * MICRO,
        issued / INSTRUCTIONS_A_SECOND * MICRO,
    )  # fmt: skip


def cuda_floor(layer: GpuLayer, mask: Tensor, precision: str, per_fragment: dict[str, float]) -> Floor:
    """The same for the CUDA kernels; `per_fragment`: kernel -> instructions that it issues for a fragment."""
    spec, pattern = layer.spec, Pattern.from_mask(mask)
    blocks = ChunkedBlocks.of_forward_by_chunks(pattern, spec)
    transposed = ChunkedBlocks.of_grad_input_by_chunks(pattern, spec)
    positions, inputs, outputs = sizes(layer)
    flops = moved = issued = loads = 0.0
    for operation in OPERATIONS:
        plan = transposed if operation == "grad_input" else blocks
        eighths = plan.chunk_offsets.diff(dim=1) / DEPTH
        fragments = float(eighths.sum()) * DEPTH * positions / FRAGMENT
        flops += 2 * fragments * FRAGMENT * BLOCK_ROWS
        moved += (inputs + outputs + 2 * plan.slots + pattern.nnz) * _bytes(precision)
        weights = operation == "grad_weight"
        issued += fragments * per_fragment["grad_weight_kernel" if weights else "correlation_kernel"]
        # In grad_weight four loads of gradients serve all columns of a block in a chunk, up to eight times eight; in
        # half precision a product has two fragments, and a load two positions.
        together = float(eighths[eighths > 0].clamp(1, 8).mean()) if eighths.any() else 1.0
        loads += fragments * (2 + 4 / together if weights else 2) / (2 if precision == "bfloat16" else 1)
    return Floor(
        flops, moved, flops / FLOPS[precision] * MICRO, moved / BYTES_A_SECOND * MICRO,
        issued / INSTRUCTIONS_A_SECOND * MICRO, loads / SHARED_LOADS_A_SECOND * MICRO,
    )  # fmt: skip


def cuda_instructions(precision: str) -> dict[str, float]:
    """Kernel -> instructions for a fragment, in the extension that is built."""
    built = extension.built("_cuda")
    if built is None:
        raise FileNotFoundError("the CUDA extension is not built: see LTH_SPARSE_CUDA in docs/gpu-kernels.md")
    found = {readable(kernel.name): kernel for kernel in kernels_in(built) if kernel.architecture == ARCHITECTURE}
    arithmetic = {"tf32": "Tf32", "bfloat16": "Bfloat16, pairs"}[precision]
    return {name: per_fragment(found[(name, arithmetic)]) for name in GATHERING}


def instructions(layer: GpuLayer, precision: str) -> dict[str, float]:
    """Operation -> instructions for a gathered element, in the kernel that gathers."""
    kernels = compiled_layer(ARCHITECTURE, precision, "contiguous", layer.spec, layer.input_shape)
    return {operation: max(kernel.per_element for kernel in found) for operation, found in kernels.items()}


def table(
    backend: str, precision: str, masks_of: dict[str, dict[float, dict[str, Tensor]]], layers: Sequence[GpuLayer]
) -> list[str]:
    """A line a layer, kind of mask and sparsity. masks_of: kind -> sparsity -> layer -> mask."""
    titles = ["layer", "masks", "sparsity", "GFLOP dense", "plan", "MB dense", "plan", "us dense", "us plan: cores",
              "memory", "instructions", "shared", "floor", "dense floor / plan floor"]  # fmt: skip
    cells = [titles]
    for layer in layers:
        dense = dense_floor(layer, precision)
        counted = instructions(layer, precision) if backend == "triton" else cuda_instructions(precision)
        for kind, by_sparsity in masks_of.items():
            for sparsity, masks in by_sparsity.items():
                if layer.name not in masks:
                    continue
                floor = plan_floor if backend == "triton" else cuda_floor
                plan = floor(layer, masks[layer.name], precision, counted)
                cells.append(
                    [layer.name, kind, f"{sparsity:.0%}", f"{dense.flops / 1e9:.1f}", f"{plan.flops / 1e9:.1f}",
                     f"{dense.bytes / 1e6:.0f}", f"{plan.bytes / 1e6:.0f}", f"{dense.microseconds:.0f}",
                     f"{plan.tensor_cores:.0f}", f"{plan.memory:.0f}", f"{plan.instructions:.0f}",
                     f"{plan.shared:.0f}" if plan.shared else "", f"{plan.microseconds:.0f}",
                     f"{dense.microseconds / plan.microseconds:.2f}"]
                )  # fmt: skip
    return aligned(cells)


def random_masks(layers: Sequence[GpuLayer]) -> dict[float, dict[str, Tensor]]:
    """Sparsity -> layer -> a mask that keeps each weight with the same chance."""
    generator = torch.Generator().manual_seed(0)
    chances = {layer.name: torch.rand(layer.spec.weight_shape, generator=generator) for layer in layers}
    return {sparsity: {name: chance >= sparsity for name, chance in chances.items()} for sparsity in SPARSITIES}


def ticket_masks(layers: Sequence[GpuLayer], device: torch.device, image_size: int) -> dict[float, dict[str, Tensor]]:
    """Sparsity -> layer -> the mask of a real ticket, for the layers that have one."""
    return {
        sparsity: {layer.name: masks[layer.ticket_layer] for layer in layers if layer.ticket_layer is not None}
        for sparsity, masks in tickets(SPARSITIES, device, image_size).items()
    }


def _bytes(precision: str) -> int:
    return 2 if precision == "bfloat16" else 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost_model", description="modelled, not measured")
    parser.add_argument("--backend", choices=("triton", "cuda"), default="triton")
    parser.add_argument("--precision", choices=list(FLOPS), default="tf32")
    parser.add_argument("--tickets", action="store_true", help="masks of trained networks too")
    chosen = parser.parse_args(arguments)
    if interpreted():
        parser.error("TRITON_INTERPRET is set, and the model counts instructions of compiled kernels: unset it")
    if chosen.backend == "cuda" and (chosen.precision == "float32" or extension.built("_cuda") is None):
        parser.error("--backend cuda: modelled for what tensor cores multiply, from the extension that setup.py built")
    masks_of = {"random": random_masks(LAYERS)}
    if chosen.tickets:
        masks_of["ticket"] = ticket_masks(LAYERS, torch.device("cpu"), 8)
    print(
        f"MODELLED for an {GPU}, {chosen.backend}, {chosen.precision}: no GPU has run this. Forward pass and both "
        "gradients, contiguous."
    )
    print("\n".join(table(chosen.backend, chosen.precision, masks_of, LAYERS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
