"""A function recorded as a CUDA graph: training a small network is otherwise a wait for kernels to be launched."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from lth_sparse.system import torchrun

WARM_UP_CALLS = 3
"""Calls before the recording, in which libraries and caches set themselves up. PyTorch's notes take as many."""
_SYNCHRONISED = "synchronizing CUDA operation"
"""Part of what PyTorch says of an operation that waits for the GPU, in its synchronisation debug mode."""

_streams: dict[torch.device, torch.cuda.Stream] = {}
"""The side stream of each device: one for all graphs, so that libraries keep one workspace for it."""
_broken: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed: PyTorch's allocator may still ask them which stream they record."""


def recordable(device: torch.device) -> bool:
    """Whether a step on `device` is recorded: on a GPU it is, unless several processes average its gradients."""
    return device.type == "cuda" and torchrun.count() == 1


class StepGraph:
    """Calls one function on one GPU: a few times as it is, then recorded as a CUDA graph, which is replayed.

    The function works on fixed tensors and takes from them all that changes from call to call. Every call does its work
    exactly once: the first ones are the warm-up, and what is recorded is not executed until it is replayed, in the same
    call. After PyTorch's notes on CUDA graphs (whole-network capture), the warm-up runs on a side stream, the one that
    is recorded, and every gradient has to be None before a backward pass, so that it is the graph's own.

    A function that cannot be recorded is called as it is for good; `refusal` then says why not, and is "" until then.
    """

    def __init__(self, device: torch.device) -> None:
        self.refusal = ""
        self._device = device
        self._calls = 0
        self._recorded: torch.cuda.CUDAGraph | None = None

    @property
    def settled(self) -> bool:
        """Whether calls from here on are all alike: all replayed, or none."""
        return self._recorded is not None or self.refusal != ""

    def __call__(self, function: Callable[[], None]) -> None:
        """Does the work of `function`, which has to be the same one every time.

        It is not kept, or it would keep what it is bound to, and the memory of the graph, for the garbage collector.
        """
        if self._recorded is not None:
            self._recorded.replay()
            return
        if self.refusal:
            function()
            return
        self._calls += 1
        if self._calls < WARM_UP_CALLS:
            self._warm_up(function)
        elif self._calls == WARM_UP_CALLS:
            self.refusal = self._waits(function)
        else:
            self._record_and_play(function)

    def _record_and_play(self, function: Callable[[], None]) -> None:
        try:
            self._recorded = self._record(function)
        except Exception as error:
            # Whatever it was: if it is not the recording's fault, the call as it is will raise it again.
            self.refusal = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if self._recorded is None:
            function()
        else:
            self._recorded.replay()

    # What touches the GPU.

    def _warm_up(self, function: Callable[[], None]) -> None:
        """Calls `function` on the side stream."""
        stream, current = self._stream(), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # Adam warns of steps that are not recorded, which a warm-up has to be.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            function()
        current.wait_stream(stream)

    def _waits(self, function: Callable[[], None]) -> str:
        """Calls `function` on the side stream; gives the first place where it waits for the GPU, "" if it never does.

        Then it cannot be recorded, and it is better not to try: of the state in which a recording that fails halfway
        leaves PyTorch's allocator and random generators, nothing is promised.
        """
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self._warm_up(function)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        places = [f"{Path(each.filename).name}:{each.lineno}" for each in caught if _SYNCHRONISED in str(each.message)]
        return f"an operation at {places[0]} waits for the GPU" if places else ""

    def _record(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """`function` as a graph; it is not executed."""
        graph = torch.cuda.CUDAGraph()
        stream = self._stream()
        # A recording that fails leaves its stream the current one; the outer `with` does not.
        with torch.cuda.stream(stream):
            try:
                with torch.cuda.graph(graph, stream=stream):
                    function()
            except Exception:
                _broken.append(graph)
                raise
        return graph

    def _stream(self) -> torch.cuda.Stream:
        if self._device not in _streams:
            _streams[self._device] = torch.cuda.Stream(self._device)
        return _streams[self._device]
