"""Whether a speedup lasts on a machine that is not ours alone: `python -m bench.busy`, in about two minutes.

Layers are timed as `pytest bench/` times them, dense PyTorch and the C++ kernels in turn, once with the machine to
themselves and once beside a process that spins on core 0, and all of it three times. With `--results FOLDER` the rows
are written to a file there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import lth_sparse
from bench.cases.layers import LAYERS
from bench.contests import layers
from bench.suite import results_file
from bench.timing.busy_core import busy_core
from bench.timing.row import Row
from lth_sparse.storage import environment
from lth_sparse.system import allocator, home

CASES = ("c64", "c256")
SPARSITY = 0.9
REPEATS = 3
SECONDS = 4.0
"""Of the turns of a layer. Beside another process a turn waits now and then for its share of the core."""


def measure(name: str, seconds: float) -> Row:
    """The row of a layer: the better layout of dense PyTorch over ours, forward and backward."""
    (layer,) = [layer for layer in LAYERS if layer.name == name]
    timed = layers.measure(layer, layers.CPU, [SPARSITY], ["cpp"], seconds=seconds)
    return layers.rows_of(timed)[0]


def measured(cases: Sequence[str], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each case, with the machine to itself and not, in turn, as often as `repeats`."""
    found = []
    for repeat in range(repeats):
        for name in cases:
            found.append({"busy": False, "repeat": repeat} | asdict(measure(name, seconds)))
            with busy_core():
                found.append({"busy": True, "repeat": repeat} | asdict(measure(name, seconds)))
            for row in found[-2:]:
                print(line(row), flush=True)
    return found


def line(row: dict[str, Any]) -> str:
    """A row, to be read."""
    low, high = row["quartiles"]
    return (
        f"{row['case']:6} {row['sparsity']:.0%}  {'core 0 busy' if row['busy'] else 'quiet':11}  "
        f"{row['by_median']:5.2f} ({low:.2f} to {high:.2f}) by medians, {row['by_minimum']:5.2f} by minima"
    )


def main() -> None:
    """Measures, prints, and writes a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.busy", description="times layers beside a busy process")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="write busy-MACHINE.json there")
    asked = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("bench.busy: this system does not let a process choose its core, as Linux does")
    if reason := lth_sparse.backends()["cpp"]:
        sys.exit(f"bench.busy: nothing to measure: cpp backend: {reason}")
    allocator.keep_freed_memory()
    here = environment.describe(layers.CPU, lth_sparse.__version__)
    here["instruction_set"] = torch.ops.lth_sparse_cpu.instruction_set()
    rows = measured(CASES, REPEATS, SECONDS)
    if asked.results:
        command = home.command("python -m bench.busy", sys.argv[1:])
        print(f"-> {results_file.write('busy', asked.results, here, command, {'rows': rows})}")


if __name__ == "__main__":
    main()
