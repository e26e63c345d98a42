"""How one call is timed: by the clock on the CPU, between events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from bench.timing import gpu

Call = Callable[[], Any]


class Stopwatch(Protocol):
    """`prepared` once for each call, then `seconds` of it as often as wanted."""

    def prepared(self, call: Call) -> Call:
        """What `seconds` is given in the place of `call`."""
        ...

    def seconds(self, call: Call) -> float:
        """Of one `call`."""
        ...


class HostStopwatch:
    """Wall time."""

    def prepared(self, call: Call) -> Call:
        """Itself."""
        return call

    def seconds(self, call: Call) -> float:
        """From before the call until it returns."""
        began = time.perf_counter()
        call()
        return time.perf_counter() - began


class GpuStopwatch:
    """Time between events around a CUDA graph of several calls, so that no launch is in it."""

    def prepared(self, call: Call) -> Call:
        """A replay of the graph; the calls that warm up let the auto backend choose."""
        return gpu.graphed(call).replay

    def seconds(self, call: Call) -> float:
        """Of one of the calls that a replay makes."""
        return gpu.seconds_between_events(call) / gpu.CALLS


def of(device: torch.device) -> Stopwatch:
    """The one for `device`."""
    return GpuStopwatch() if device.type == "cuda" else HostStopwatch()
