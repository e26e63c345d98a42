"""The peak memory of training steps of one side, and of both what the figure is made of."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.cases.goals import DENSE_SPARSITY, Goal
from bench.cases.networks import Network
from bench.sides.steps import step, usual_layout
from bench.timing.operation import rounded
from bench.timing.row import Findings, Row

MEMORY_STEPS = 3


def peak_memory(network: Network, backend: str) -> dict[str, float]:
    """Peaks in MiB from before the network is made to the end of a few training steps. Linux only.

    allocated: the bytes that PyTorch holds at once, as its profiler counts them; without the scratch of kernels.
    resident: growth of the process, which is larger, for it holds what the C library has not given back and the code
    that was loaded meanwhile.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        before = resident("VmRSS")
        one_step = step(network, backend, DENSE_SPARSITY, usual_layout(network), torch.device("cpu"))["step"]
        for _ in range(MEMORY_STEPS):
            one_step()
        grown = resident("VmHWM") - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    allocated = max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]") / 2**20
    return {"allocated": round(allocated, 1), "resident": round(grown, 1)}


def resident(field: str) -> float:
    """MiB, by Linux's name for them. Not ru_maxrss: a process inherits that of the one that started it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def memory(case: str, sparsity: float, peaks: Mapping[str, Mapping[str, float]], goal: Goal) -> Findings:
    """From the peaks of "dense" and "cpp" in MiB, measured once each: as `peak_memory` gives them."""

    def row(kind: str, goal: Goal | None) -> Row:
        ratio = rounded(peaks["dense"][kind] / peaks["cpp"][kind])
        must, aim = (goal.must, goal.aim) if goal else (None, None)
        return Row(case, sparsity, "cpp", "masked dense", ratio, ratio, None, must, aim, f"peak memory, {kind}")

    sides = [{"case": case, "side": side, "peak_mib": peaks[side]} for side in peaks]
    return Findings([row("allocated", goal), row("resident", None)], sides)
