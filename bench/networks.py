"""The contest of one network: whole training steps, and the memory that they take."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import lth_sparse as lth
from bench import sides
from bench.cases import DENSE_SPARSITY, NEVER_SLOWER, Network
from bench.layers import LAYOUTS, TOLERANCE, name_of
from bench.measure import Contest, Findings, Side
from lth_sparse import masks as masking
from lth_sparse import models
from lth_sparse.masks import Masks

MEMORY_STEPS = 3
_NOT_MASKED = "dense"


def contest(network: Network) -> Contest:
    """Raises AssertionError when ours does not agree with dense PyTorch."""
    fixed = _command_line_layout(network)
    ours = [("cpp", sparsity, layout) for sparsity in network.goals for layout in LAYOUTS]
    ours += [("auto", sparsity, fixed) for sparsity in network.auto]
    for choice in ours:
        _check(network, *choice)
    found = {_masked(layout): _side(network, "dense", DENSE_SPARSITY, layout) for layout in LAYOUTS}
    found[_NOT_MASKED] = _side(network, "dense", 0.0, fixed)
    return Contest(network.name, found | {name_of(*choice): _side(network, *choice) for choice in ours})


def findings(network: Network, contest: Contest) -> Findings:
    """The rows, when the contest is over: dense and cpp each in their better layout, auto in the command line's."""
    rows = []
    masked = contest.best(_masked(layout) for layout in LAYOUTS)
    for sparsity, goal in network.goals.items():
        names = {layout: name_of("cpp", sparsity, layout) for layout in LAYOUTS}
        each = {layout: contest.row(name, masked, sparsity) for layout, name in names.items()}
        note = ", ".join(f"{layout} {row.by_minimum:.2f}" for layout, row in each.items())
        rows.append(contest.row(contest.best(names.values()), masked, sparsity, goal, note))
    fixed = _command_line_layout(network)
    for sparsity in network.auto:
        against = masked if sparsity else _NOT_MASKED
        rows.append(contest.row(name_of("auto", sparsity, fixed), against, sparsity, NEVER_SLOWER))
    return Findings(rows, contest.summary())


def peak_memory(network: Network, backend: str) -> dict[str, float]:
    """Peaks in MiB from before the network is made to the end of a few training steps. Linux only.

    allocated: the bytes that PyTorch holds at once, as its profiler counts them; without the scratch of kernels.
    resident: growth of the process, which is larger, for it holds what the C library has not given back and the code
    that was loaded meanwhile.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        before = _resident("VmRSS")
        step = _side(network, backend, DENSE_SPARSITY, _command_line_layout(network))["step"]
        for _ in range(MEMORY_STEPS):
            step()
        resident = _resident("VmHWM") - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    allocated = max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]") / 2**20
    return {"allocated": round(allocated, 1), "resident": round(resident, 1)}


def _resident(field: str) -> float:
    """MiB. Not ru_maxrss: a process inherits that of the one that started it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def _masked(layout: str) -> str:
    return f"masked dense, {layout}"


def _side(network: Network, backend: str, sparsity: float, layout: str) -> Side:
    model, masks = _pruned(network, sparsity, layout)
    if backend != "dense":
        model = lth.sparsify(model, masks, backend)
    # Sparse layers need no masks, and nobody applies masks that prune nothing.
    applied = masks if backend == "dense" and sparsity else {}
    return {"step": sides.training_step(model, *_batch(network, layout), applied)}


def _check(network: Network, backend: str, sparsity: float, layout: str) -> None:
    images, _ = _batch(network, layout)
    model, masks = _pruned(network, sparsity, layout)
    with torch.no_grad():
        expected = model(images)
        error = sides.relative_error(lth.sparsify(model, masks, backend)(images), expected)
    assert error < TOLERANCE, f"{network.name}, {backend}: relative error {error:.2g} against dense PyTorch"


def _pruned(network: Network, sparsity: float, layout: str) -> tuple[nn.Module, Masks]:
    model = models.build(models.Network(network.name, network.input_shape[1:], network.classes), seed=0)
    masks = sides.random_masks(model, sparsity)
    masking.apply(model, masks)
    return model.to(memory_format=LAYOUTS[layout]), masks


def _batch(network: Network, layout: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(network.input_shape, generator=generator).contiguous(memory_format=LAYOUTS[layout])
    return images, torch.randint(0, network.classes, network.input_shape[:1], generator=generator)


def _command_line_layout(network: Network) -> str:
    faster = models.faster_layout(_pruned(network, 0.0, "contiguous")[0])
    return next(name for name, layout in LAYOUTS.items() if layout == faster)
