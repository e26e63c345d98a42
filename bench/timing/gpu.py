"""Times of calls on a GPU, captured in a CUDA graph and taken between events, so that no launch is in them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

CALLS = 10
"""Of each side in its graph."""
TURNS = 9


def graphed(call: Callable[[], object], calls: int = CALLS) -> torch.cuda.CUDAGraph:
    """A CUDA graph of so many calls, after three to warm up on a stream of their own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return graph


def microseconds(sides: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median of each side, taken in turn. On the CPU, where only a rehearsal runs, of one plain call."""
    if device.type != "cuda":
        return {name: _plain(call) for name, call in sides.items()}
    graphs = {name: graphed(call) for name, call in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 1):
        for name in list(graphs)[:: 1 if turn % 2 else -1]:
            seconds = seconds_between_events(graphs[name].replay)
            if turn:
                times[name].append(1e6 * seconds / CALLS)
    return {name: statistics.median(values) for name, values in times.items()}


def seconds_between_events(call: Callable[[], object]) -> float:
    """Of the GPU, from before what `call` launches to after it."""
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    call()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000


def _plain(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - began)
