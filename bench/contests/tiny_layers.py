"""Layers with next to nothing to compute, beside nn's own: what is left is what a call costs.

A linear layer 64 -> 32 of 8 rows and a convolution 8 -> 16 of 8 images of 8 x 8, 10 % of the weights live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lth_sparse as lth
from bench.timing.contest import Contest
from bench.timing.stopwatch import HostStopwatch
from lth_sparse.verification.judgement import relative

BACKENDS = ("cpp", "auto")
LIVE = 0.1
CALLS = 50
"""In one turn: a single one is too short for the clock."""
LARGEST_ERROR = 1e-5
MUST = {"step": {"cpp": 1.1, "auto": 1.15}, "step, dispatch mode": dict.fromkeys(BACKENDS, 1.35)} | {
    "inference": dict.fromkeys(BACKENDS, 1.1)
}
"""Time over nn's: forward and backward; the same with a TorchDispatchMode active, to which operators show up."""


@dataclass(frozen=True)
class Tiny:
    """The dense layer, an input, and the sparse layers by backend."""

    dense: nn.Module
    x: Tensor
    sparse: Mapping[str, nn.Module]


def layers() -> dict[str, Tiny]:
    """The two by name."""
    torch.manual_seed(0)
    found = {}
    linear, convolution = nn.Linear(64, 32), nn.Conv2d(8, 16, 3, padding=1)
    for dense, shape in ((linear, (8, 64)), (convolution, (8, 8, 8, 8))):
        mask = torch.rand_like(dense.weight) < LIVE
        make: Any = lth.SparseLinear.from_dense if dense is linear else lth.SparseConv2d.from_dense
        sparse = {backend: make(dense, mask, backend=backend) for backend in BACKENDS}
        name = "linear" if dense is linear else "conv2d"
        found[name] = Tiny(dense, torch.randn(shape, requires_grad=True), sparse)
    return found


def measure(name: str, layer: Tiny, way: str, seconds: float) -> dict[str, list[float]]:
    """Of each side, "nn" and the backends, turn by turn, seconds of a call `way`, which is one of `MUST`.

    Raises AssertionError when a result is wrong.
    """
    for side in layer.sparse.values():
        with torch.no_grad():
            expected = side.to_dense().double()(layer.x.double())  # type: ignore[operator]
            assert relative(side(layer.x), expected) < LARGEST_ERROR
    grad_out = torch.randn_like(layer.dense(layer.x))
    with _Watching() if "mode" in way else nullcontext():
        # Who measures under a mode has none to switch on in each call.
        modules = {"nn": layer.dense, **layer.sparse}
        sides = {side: {"": _calls(way, module, layer.x, grad_out)} for side, module in modules.items()}
        measured = Contest(f"{name}, {way}", sides, HostStopwatch()).run(seconds)
    return {side: [took / CALLS for took in measured.of(side)] for side in sides}


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _calls(way: str, layer: nn.Module, x: Tensor, grad_out: Tensor) -> Callable[[], None]:
    def infer() -> None:
        with torch.no_grad():
            for _ in range(CALLS):
                layer(x)

    def step() -> None:
        for _ in range(CALLS):
            layer(x).backward(grad_out)

    return infer if way == "inference" else step
