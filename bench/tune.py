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
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.gpu.results import say
from bench.gpu.tuning import BLOCKS, LAUNCHES, LAYER, TINY, entry_of, precisions_of, tuned
from lth_sparse.kernels import configurations
from lth_sparse.kernels.configurations import Launch


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes and writes, after each shape of blocks that is the best so far."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description="rewrites kernels/configurations.json")
    parser.add_argument("--out", type=Path, default=configurations.PATH, metavar="FILE", help="the table to write")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: the same steps; needs --out")
    chosen = parser.parse_args(arguments)
    if chosen.rehearse and chosen.out == configurations.PATH:
        parser.error("a rehearsal measures nothing that belongs into the table: give --out FILE")
    if chosen.out.is_dir():
        parser.error(f"--out: got the folder {chosen.out}, expected a file in it, such as {chosen.out / 'table.json'}")
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
