"""How one call is timed: by the clock on the CPU, between events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from bench.timing import gpu

Call = Callable[[], Any]

SETTLE = 0.005
"""Seconds. Longer than threads of OpenMP spin when they have nothing to do, which is some milliseconds."""


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


class SustainedStopwatch:
    """Wall time of a call among others like it: for `settle` seconds they are not timed, then as many are.

    A library that brings threads of its own lets them spin for some milliseconds after their work, in the turn of the
    next side; and a single short call meets another process on its core by chance.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle

    def prepared(self, call: Call) -> Call:
        """Itself."""
        return call

    def seconds(self, call: Call) -> float:
        """The mean of a call."""
        calls, began = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - began < self._settle:
            call()
            calls += 1
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls


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
