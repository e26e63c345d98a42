"""What a tiny layer costs where there is next to nothing to compute: `python -m bench.overhead`, in half a minute.

A linear layer 64 -> 32 of 8 rows and a convolution 8 -> 16 of 8 images of 8 x 8, 10 % of the weights live: time over
that of nn.Linear and nn.Conv2d, all in turn in this process, called as a user calls them. Exit status 1 when a ratio
of minima is above what it must be.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lth_sparse as lth
from bench.timing.contest import Contest
from bench.timing.stopwatch import HostStopwatch
from lth_sparse.backends import autograd_library
from lth_sparse.system import allocator
from lth_sparse.verification.judgement import relative

BACKENDS = ("cpp", "auto")
LIVE = 0.1
CALLS = 50
"""In one turn: a single one is too short for the clock."""
SECONDS = 1.5
LARGEST_ERROR = 1e-5
MUST = {"step": {"cpp": 1.1, "auto": 1.15}, "step, dispatch mode": dict.fromkeys(BACKENDS, 1.35)} | {
    "inference": dict.fromkeys(BACKENDS, 1.1)
}
"""Forward and backward; the same with a TorchDispatchMode active, which operators show themselves to."""


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def layers() -> dict[str, tuple[nn.Module, Tensor, dict[str, nn.Module]]]:
    """Name -> (the dense layer, an input, the sparse layers by backend)."""
    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, Tensor, dict[str, nn.Module]]] = {}
    linear, convolution = nn.Linear(64, 32), nn.Conv2d(8, 16, 3, padding=1)
    for dense, shape in ((linear, (8, 64)), (convolution, (8, 8, 8, 8))):
        mask = torch.rand_like(dense.weight) < LIVE
        make: Any = lth.SparseLinear.from_dense if dense is linear else lth.SparseConv2d.from_dense
        sparse = {backend: make(dense, mask, backend=backend) for backend in BACKENDS}
        found["linear" if dense is linear else "conv2d"] = dense, torch.randn(shape, requires_grad=True), sparse
    return found


def times(way: str, name: str, dense: nn.Module, x: Tensor, sparse: dict[str, nn.Module]) -> dict[str, list[float]]:
    """Of each side, turn by turn, seconds of a call. Raises AssertionError when a result is wrong."""
    for layer in sparse.values():
        with torch.no_grad():
            expected = layer.to_dense().double()(x.double())  # type: ignore[operator]
            assert relative(layer(x), expected) < LARGEST_ERROR
    grad_out = torch.randn_like(dense(x))
    with _Watching() if "mode" in way else nullcontext():
        # Who measures under a mode has none to switch on in each call.
        sides = {side: {"": _calls(way, layer, x, grad_out)} for side, layer in {"nn": dense, **sparse}.items()}
        measured = Contest(f"{name}, {way}", sides, HostStopwatch()).run(SECONDS)
    return {side: [seconds / CALLS for seconds in measured.of(side)] for side in sides}


def _calls(way: str, layer: nn.Module, x: Tensor, grad_out: Tensor) -> Callable[[], None]:
    def infer() -> None:
        with torch.no_grad():
            for _ in range(CALLS):
                layer(x)

    def step() -> None:
        for _ in range(CALLS):
            layer(x).backward(grad_out)

    return infer if way == "inference" else step


def main() -> int:
    """1 when a layer takes longer than it must."""
    allocator.keep_freed_memory()
    if reason := autograd_library.UNUSABLE:
        print(f"overhead: layers are called from Python: {reason}")
    print(f"time over nn's, {torch.get_num_threads()} threads: by minimum, median [quartiles], microseconds of nn's")
    missed = False
    for name, (dense, x, sparse) in layers().items():
        for way, musts in MUST.items():
            seconds = times(way, name, dense, x, sparse)
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
