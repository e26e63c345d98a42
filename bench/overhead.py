"""What a tiny layer costs where there is next to nothing to compute: `python -m bench.overhead`, in half a minute.

Time over that of nn.Linear and nn.Conv2d, all in turn in this process, called as a user calls them, of the layers of
`bench.contests.tiny_layers`. Exit status 1 when a ratio of minima is above what it must be.
"""

from __future__ import annotations

import statistics
import sys

import torch

from bench.contests import tiny_layers
from lth_sparse.backends import autograd_library
from lth_sparse.system import allocator

SECONDS = 1.5


def main() -> int:
    """1 when a layer takes longer than it must."""
    allocator.keep_freed_memory()
    if reason := autograd_library.UNUSABLE:
        print(f"overhead: layers are called from Python: {reason}")
    print(f"time over nn's, {torch.get_num_threads()} threads: by minimum, median [quartiles], microseconds of nn's")
    missed = False
    for name, layer in tiny_layers.layers().items():
        for way, musts in tiny_layers.MUST.items():
            seconds = tiny_layers.measure(name, layer, way, SECONDS)
            for backend, must in musts.items():
                ratios = [own / nns for own, nns in zip(seconds[backend], seconds["nn"], strict=True)]
                low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
                least = min(seconds[backend]) / min(seconds["nn"])
                missed |= least > must
                print(
                    f"{name:7} {way:20} {backend:5} {least:5.2f} {median:5.2f} [{low:.2f}, {high:.2f}]"
                    f" {1e6 * min(seconds['nn']):6.1f}  must {must}{'  MISSED' if least > must else ''}"
                )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
