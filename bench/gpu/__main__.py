"""Builds, tests and measures the GPU backends in one command, within 8 minutes and without a network: `make gpu`.

Results are written as they are found, to OUT/gpu-NAME.json; a short table ends the run. `--rehearse` goes through the
same steps without a GPU, on tiny layers in Triton's interpreter: its times mean nothing, and its file says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.gpu.checks import ROOT, build
from bench.gpu.results import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what there is time for; 1 when a test or a measurement failed, 2 when there is no GPU to run on."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="builds, tests and measures on a GPU")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="DIR")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: the same steps on tiny layers")
    parser.add_argument("--no-build", action="store_true", help="the checkout is installed already")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    if chosen.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        parser.error("there is no GPU: run it where there is one, or give --rehearse")
    build_failed = [] if chosen.no_build else build()
    for line in build_failed:
        say(f"build: {line}")

    # Not before: it imports lth_sparse, and with it the kernels that were built just now.
    from bench.gpu import run
    from lth_sparse.system import home

    command = home.command("python -m bench.gpu", sys.argv[1:] if arguments is None else arguments)
    return run.run(chosen.out, command, chosen.rehearse, build_failed, began)


if __name__ == "__main__":
    sys.exit(main())
