"""What more threads cost, on any machine: `OMP_WAIT_POLICY=passive python -m bench.threads`, in half a minute.

With more threads than cores, none of them idle, the time of a pass is the work of all together. Over that of as many
threads as there are cores it says what is done more than once, and what waking threads costs: at n threads 1 is as it
should be, and no machine can make the pass faster than n over the ratio.
"""

from __future__ import annotations

import os
import sys
import time

import torch

import lth_sparse
from bench.cases.layers import LAYERS
from bench.contests.layers import CPU
from bench.contests.tensors import PASSES, Tensors
from bench.sides.sparse import sparse_layer
from lth_sparse.system import allocator

CASES = (
    ("c64", "cpp/winograd", 0.5),
    ("c128", "cpp/winograd", 0.5),
    ("c256", "cpp/winograd", 0.5),
    ("c64", "cpp/sparse", 0.9),
    ("c256", "cpp/sparse", 0.9),
    ("c512", "cpp/sparse", 0.9),
    ("linear", "cpp/sparse", 0.9),
)
THREADS = (8, 16, 32, 64)
ROUNDS = 5
CALLS = 4
"""Of a round. The first ones wake threads that another number put to sleep, and do not count."""


def ratios(name: str, kernels: str, sparsity: float) -> dict[str, tuple[float, dict[int, float]]]:
    """Pass -> (milliseconds by a thread a core, number of threads -> time over it)."""
    (layer,) = [layer for layer in LAYERS if layer.name == name]
    tensors = Tensors.random(layer.spec, layer.input_shape, CPU)
    mask = tensors.chances >= sparsity
    side = sparse_layer(kernels, layer.spec, mask, *tensors.masked(mask))
    before = torch.get_num_threads()
    least: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for number in (before, *THREADS):
            torch.set_num_threads(number)
            for each in PASSES:
                for _ in range(CALLS):
                    began = time.perf_counter()
                    side[each]()
                    took = time.perf_counter() - began
                least[each, number] = min(took, least.get((each, number), took))
    torch.set_num_threads(before)
    return {
        each: (1000 * least[each, before], {number: least[each, number] / least[each, before] for number in THREADS})
        for each in PASSES
    }


def main() -> None:
    """Prints a line for each pass of each layer."""
    if reason := lth_sparse.backends()["cpp"]:
        sys.exit(f"bench.threads: nothing to measure: cpp backend: {reason}")
    if os.environ.get("OMP_WAIT_POLICY") != "passive":
        sys.exit(
            "bench.threads: threads that wait would take the cores of those that work: set OMP_WAIT_POLICY=passive"
        )
    allocator.keep_freed_memory()
    print(f"work of n threads together over that of {torch.get_num_threads()}, minima")
    for case in CASES:
        for each, (milliseconds, found) in ratios(*case).items():
            numbers = "  ".join(f"{number}: {ratio:5.2f}" for number, ratio in found.items())
            name, kernels, sparsity = case
            print(f"{name:7} {kernels:13} {sparsity:.0%} {each:12} {milliseconds:6.2f} ms  {numbers}", flush=True)


if __name__ == "__main__":
    main()
