"""Medians of sides that are timed in turn; on a GPU each is recorded as a CUDA graph where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lth_sparse.lottery.step_graph import StepGraph, recordable
from lth_sparse.system import timing


def medians(sides: Mapping[str, Callable[[], object]], device: torch.device) -> tuple[dict[str, float], list[str]]:
    """Median milliseconds of each side, and why a side could not be recorded, so that launches are in its time."""
    notes: list[str] = []
    calls = []
    for name, side in sides.items():
        call, refusal = _recorded(side, device)
        calls.append(call)
        if refusal:
            notes.append(f"{name}: timed without a CUDA graph ({refusal})")
    return dict(zip(sides, timing.side_by_side(calls, device), strict=True)), notes


def _recorded(side: Callable[[], object], device: torch.device) -> tuple[Callable[[], object], str]:
    if not recordable(device):
        return side, ""
    graph = StepGraph(device)

    def function() -> None:
        side()

    while not graph.settled:
        graph(function)
    return lambda: graph(function), graph.refusal
