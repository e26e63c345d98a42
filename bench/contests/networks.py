"""One network: whole training steps, masked dense and ours, timed in turn and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lth_sparse as lth
from bench.cases.goals import DENSE_SPARSITY, NEVER_SLOWER
from bench.cases.layouts import LAYOUTS
from bench.cases.networks import Network
from bench.contests.layers import CPU, TOLERANCE, kernels_of, name_of
from bench.sides import steps
from bench.timing import stopwatch, work
from bench.timing.ceilings import Ceilings
from bench.timing.contest import Contest, Times
from bench.timing.operation import operation
from bench.timing.row import Findings
from bench.timing.work import Work
from lth_sparse.nn import SparseConv2d, SparseLinear
from lth_sparse.verification.judgement import relative

TIMES_DENSE = 10.0
"""What logits may be off, of what dense PyTorch's are: where nearly all is pruned, BatchNorm divides by next to
nothing, and a rounding grows."""


Layers = list[tuple[SparseConv2d | SparseLinear, tuple[int, ...]]]
"""The layers in the order of a step, with the shapes of their inputs."""


@dataclass(frozen=True)
class Timed:
    """A contest that is over, and how far the logits of each side are from float64 at each sparsity."""

    network: Network
    device: torch.device
    times: Times
    errors: dict[tuple[str, float], float]
    layers: dict[float, Layers]


def measure(network: Network, device: torch.device, sparsities: Sequence[float], backends: Sequence[str]) -> Timed:
    """All of them in turn: at a sparsity with a goal every one of `backends`, elsewhere auto alone.

    Raises AssertionError when a side does not agree with float64.
    """
    ours = [
        (backend, sparsity, layout)
        for sparsity in sparsities
        for backend in backends
        for layout in LAYOUTS
        if backend == "auto" or sparsity in network.goals
    ]
    errors = {}
    for sparsity in sparsities:
        exact = _exact(network, sparsity, device)
        by_dense = {layout: _error(network, "dense", sparsity, layout, exact) for layout in LAYOUTS}
        errors |= {(_dense(sparsity, layout), sparsity): error for layout, error in by_dense.items()}
        # The last layers are linear, the others convolutions: the coarser arithmetic of the two counts.
        bound = max(TOLERANCE["tf32" if exact.is_cuda else "ieee"], TIMES_DENSE * max(by_dense.values()))
        for backend, at, layout in ours:
            if at == sparsity:
                error = errors[name_of(backend, at, layout), at] = _error(network, backend, at, layout, exact)
                assert error < bound, f"{network}, {backend} at {at:.0%}: relative error {error:.2g}"
    found = {
        _dense(DENSE_SPARSITY, layout): steps.step(network, "dense", DENSE_SPARSITY, layout, device)
        for layout in LAYOUTS
    }
    if 0.0 in sparsities:
        found |= {_dense(0.0, layout): steps.step(network, "dense", 0.0, layout, device) for layout in LAYOUTS}
    found |= {name_of(*choice): steps.step(network, *choice, device) for choice in ours}
    layers = {sparsity: _layers(network, sparsity) for sparsity in sparsities}
    among_its_own = network.sustained and device.type == "cpu"
    watch = stopwatch.SustainedStopwatch(stopwatch.SETTLE) if among_its_own else stopwatch.of(device)
    times = Contest(str(network), found, watch).run(network.seconds)
    return Timed(network, device, times, errors, layers)


def findings(timed: Timed, ceilings: Ceilings) -> Findings:
    """The step of every side, and on the CPU the rows: every side in its better layout, as the command line has it."""
    operations = []
    rows = []
    for sparsity, layers in timed.layers.items():
        works = _works(layers)
        against = timed.times.best(_dense(sparsity, layout) for layout in LAYOUTS)
        shown = {("dense", against.rpartition(", ")[2]): against} | _ours(timed, sparsity)
        for (backend, layout), side in shown.items():
            operations.append(
                operation(
                    (str(timed.device), str(timed.network), sparsity, "step"),
                    (backend, layout),
                    timed.times.of(side),
                    timed.times.of(against),
                    works,
                    ceilings,
                    timed.errors[side, sparsity],
                )
            )
            if timed.device.type == "cpu" and backend in ("auto", "cpp"):
                names = {layout: name_of(backend, sparsity, layout) for layout in LAYOUTS}
                each = {layout: timed.times.row(name, against, sparsity) for layout, name in names.items()}
                said = [f"{layout} {row.by_minimum:.2f}" for layout, row in each.items()]
                note = ", ".join([_kernels(layers, backend), *said])
                goal = NEVER_SLOWER if backend == "auto" else timed.network.goals[sparsity]
                rows.append(timed.times.row(side, against, sparsity, goal, note))
    return Findings(rows, timed.times.summary() if timed.device.type == "cpu" else [], operations)


def _ours(timed: Timed, sparsity: float) -> dict[tuple[str, str], str]:
    """(backend, layout) -> side, of each backend in the layout that it is faster in."""
    found: dict[str, list[str]] = {}
    for side, at in timed.errors:
        if at == sparsity and " at " in side:
            found.setdefault(side.partition(" at ")[0], []).append(side)
    best = {backend: timed.times.best(sides) for backend, sides in found.items()}
    return {(backend, side.rpartition(", ")[2]): side for backend, side in best.items()}


def _dense(sparsity: float, layout: str) -> str:
    """The time of masked dense does not depend on the mask; what is not pruned is not masked."""
    return f"masked dense, {layout}" if sparsity else f"dense, {layout}"


def _exact(network: Network, sparsity: float, device: torch.device) -> Tensor:
    """The logits in float64, of masked dense PyTorch."""
    images, _ = steps.batch(network, "contiguous", device)
    model, _ = steps.pruned(network, sparsity, "contiguous", device)
    with torch.no_grad():
        exact: Tensor = model.double()(images.double())
    return exact


def _error(network: Network, backend: str, sparsity: float, layout: str, exact: Tensor) -> float:
    images, _ = steps.batch(network, layout, exact.device)
    model, masks = steps.pruned(network, sparsity, layout, exact.device)
    if backend != "dense":
        model = lth.sparsify(model, masks, backend)
    with torch.no_grad():
        return relative(model(images), exact)


def _works(layers: Layers) -> list[Work]:
    """Of the convolutions and linear layers in a step; the images need no gradient."""
    first, *others = [work.of_layer(layer.spec, layer.mask, shape) for layer, shape in layers]
    del first["grad_input"]
    return [each for of in (first, *others) for each in of.values()]


def _kernels(layers: Layers, backend: str) -> str:
    """How many operations of a step each kernel computes: of cpp by its rule, by what auto chose in either layout."""
    counted: Counter[str] = Counter()
    for layer, shape in layers:
        counted.update(kernels_of(backend, layer.spec, layer.mask, shape))
    return " and ".join(f"{name} {count}" for name, count in counted.most_common())


def _layers(network: Network, sparsity: float) -> Layers:
    """The convolutions and linear layers in the order of a step, and the shapes of their inputs."""
    model, masks = steps.pruned(network, sparsity, "contiguous", CPU)
    found: Layers = []

    def note(layer: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(layer, SparseConv2d | SparseLinear)
        found.append((layer, tuple(given[0].shape)))

    for layer in lth.sparsify(model, masks, "dense").modules():
        if isinstance(layer, SparseConv2d | SparseLinear):
            layer.register_forward_hook(note)
    images, _ = steps.batch(network, "contiguous", CPU)
    with torch.no_grad():
        model(images)
    return found
