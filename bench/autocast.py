"""Layers in bfloat16 on the CPU: `python -m bench.autocast`, in half a minute.

`with torch.autocast("cpu", torch.bfloat16): y = layer(x)`, then `y.backward(g)`, 90 % pruned, by the cpp backend beside
dense PyTorch's bfloat16 in its better layout, all in turn in this process. Exit status 1 when a ratio is below what it
must be.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import lth_sparse
from bench.cases.goals import Goal
from bench.cases.layers import LAYERS, Layer
from bench.cases.layouts import LAYOUTS, layouts
from bench.contests.layers import CPU
from bench.contests.tensors import Tensors
from bench.sides.modules import dense_module, sparse_module
from bench.timing.contest import Contest, Side
from bench.timing.stopwatch import HostStopwatch
from lth_sparse.system import allocator

GOALS = {"c128": Goal(2, 2.5), "linear": Goal(1.3, 2)}
SPARSITY = 0.9
SECONDS = 6.0


def sides(layer: Layer) -> dict[str, Side]:
    """Of dense PyTorch and of ours, in each layout."""
    tensors = Tensors.random(layer.spec, layer.input_shape, CPU)
    mask = tensors.chances >= SPARSITY
    found = {}
    for name in layouts(layer.spec):
        x = tensors.x.bfloat16().contiguous(memory_format=LAYOUTS[name])
        dense = dense_module(layer.spec, tensors.weight)
        sparse = sparse_module("cpp", layer.spec, mask, tensors.weight)
        found[f"dense, {name}"] = _step(dense.to(memory_format=LAYOUTS[name]), x)
        found[f"cpp, {name}"] = _step(sparse, x)
    return found


def _step(layer: nn.Module, x: torch.Tensor) -> Side:
    given, (parameter,) = x.detach().requires_grad_(), layer.parameters()

    def output() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found: torch.Tensor = layer(given)
        return found

    grad_out = torch.randn_like(output().detach())

    def step() -> None:
        given.grad = parameter.grad = None
        output().backward(grad_out)

    return {"step": step}


def main() -> int:
    """1 when a layer is slower than it must be."""
    if reason := lth_sparse.backends()["cpp"]:
        sys.exit(f"bench.autocast: nothing to measure: cpp backend: {reason}")
    allocator.keep_freed_memory()
    missed = False
    print(
        f"dense bfloat16's time over ours, {SPARSITY:.0%} pruned, {torch.get_num_threads()} threads: by minimum, median"
    )
    for layer in LAYERS:
        if layer.name not in GOALS:
            continue
        times = Contest(layer.name, sides(layer), HostStopwatch()).run(SECONDS)
        dense = times.best(f"dense, {name}" for name in layouts(layer.spec))
        for name in layouts(layer.spec):
            row = times.row(f"cpp, {name}", dense, SPARSITY, GOALS[layer.name])
            missed |= row.verdict == "MISSED"
            low, high = row.quartiles or (0.0, 0.0)
            print(
                f"{layer.name:7} {row.ours:20} over {row.against:20} {row.by_minimum:5.2f} {row.by_median:5.2f}"
                f" [{low:.2f}, {high:.2f}]  must {row.must}  {row.verdict}"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
