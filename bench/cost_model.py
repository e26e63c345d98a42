"""What an H200 could make of the GPU kernels: `python -m bench.cost_model`. A model; nothing of it was measured.

A line for each layer and sparsity, forward pass and both gradients together: operations, bytes and floors, as
bench/compilers/floors.py works them out of datasheet and compiled code. Beside a floor, a measured time has something
to stand. Masks are random; --tickets takes those of trained networks (minutes on a CPU).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.cases.gpu import LAYERS, GpuLayer
from bench.cases.masks import random_masks, ticket_masks
from bench.compilers import floors
from lth_sparse.backends import extension
from lth_sparse.backends.triton import interpreted
from lth_sparse.system.messages import aligned

GPU = "H200, by its datasheet"


def table(
    backend: str, precision: str, masks_of: dict[str, dict[float, dict[str, Tensor]]], layers: Sequence[GpuLayer]
) -> list[str]:
    """A line a layer, kind of mask and sparsity. masks_of: kind -> sparsity -> layer -> mask."""
    titles = ["layer", "masks", "sparsity", "GFLOP dense", "plan", "MB dense", "plan", "us dense", "us plan: cores",
              "memory", "instructions", "shared", "floor", "dense floor / plan floor"]  # fmt: skip
    cells = [titles]
    for layer in layers:
        dense = floors.dense_floor(layer, precision)
        counted = floors.instructions(layer, precision) if backend == "triton" else floors.cuda_instructions(precision)
        for kind, by_sparsity in masks_of.items():
            for sparsity, masks in by_sparsity.items():
                if layer.name not in masks:
                    continue
                floor = floors.plan_floor if backend == "triton" else floors.cuda_floor
                plan = floor(layer, masks[layer.name], precision, counted)
                cells.append(
                    [layer.name, kind, f"{sparsity:.0%}", f"{dense.flops / 1e9:.1f}", f"{plan.flops / 1e9:.1f}",
                     f"{dense.bytes / 1e6:.0f}", f"{plan.bytes / 1e6:.0f}", f"{dense.microseconds:.0f}",
                     f"{plan.tensor_cores:.0f}", f"{plan.memory:.0f}", f"{plan.instructions:.0f}",
                     f"{plan.shared:.0f}" if plan.shared else "", f"{plan.microseconds:.0f}",
                     f"{dense.microseconds / plan.microseconds:.2f}"]
                )  # fmt: skip
    return aligned(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost_model", description="modelled, not measured")
    parser.add_argument("--backend", choices=("triton", "cuda"), default="triton")
    parser.add_argument("--precision", choices=list(floors.FLOPS), default="tf32")
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
