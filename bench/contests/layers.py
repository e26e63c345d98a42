"""One layer: dense PyTorch, and ours at each sparsity, each in both memory formats, timed in turn and checked.

On the CPU a side is the module, as a program calls it, and its operators are another side beside it; on a GPU, where
times are those of CUDA graphs, without Python, there are operators alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases.goals import DENSE_SPARSITY, FASTER_PACKING, NEVER_SLOWER, TEN_STEPS
from bench.cases.layers import Layer
from bench.cases.layouts import layouts
from bench.contests.tensors import PASSES, Tensors, errors
from bench.sides.dense import dense_gradients, dense_layer
from bench.sides.modules import dense_module, sparse_module, step
from bench.sides.sparse import packing, sparse_layer
from bench.timing import stopwatch, work
from bench.timing.ceilings import Ceilings
from bench.timing.contest import Contest, Side, Times
from bench.timing.operation import Operation, operation
from bench.timing.row import Findings, Row
from lth_sparse.backends import registry
from lth_sparse.backends.auto import AutoBackend
from lth_sparse.backends.base import float32_multiplied_in
from lth_sparse.backends.cpp import CppBackend
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

TOLERANCE = {"cpu": 3e-5, "ieee": 1e-4, "tf32": 1e-2}
"""The relative error against float64 that no side may exceed: on the CPU twice dense PyTorch's largest here, and more
than Winograd's algorithm is allowed; on a GPU by what float32 is multiplied in."""
MODULE = "module"
OPERATIONS = (*PASSES, "total", MODULE)
"""`total`: a forward pass and both gradients, which dense PyTorch computes in one call, as autograd does. `module`: the
same as a program has it, `y = layer(x); y.backward(grad_out)`, Python included."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Timed:
    """A contest that is over, and how far each pass of each side is from float64: error[side, sparsity][pass]."""

    layer: Layer
    device: torch.device
    times: Times
    errors: Mapping[tuple[str, float], Mapping[str, float]]
    masks: Mapping[float, Tensor]

    @property
    def dense_layout(self) -> str:
        """The one in which dense PyTorch is faster, all in all."""
        whole = operations_on(self.device)[-1]
        return min(layouts(self.layer.spec), key=lambda layout: min(self.seconds(dense_name(layout), whole)))

    def seconds(self, side: str, name: str) -> list[float]:
        """Of the operation called `name`, turn by turn."""
        if name == MODULE:
            return self.times.of(side)
        if name in ("grad_input", "grad_weight") and side.startswith("dense, "):
            return self.times.of(_one_by_one(side), name)
        return self.times.of(operators_of(side), None if name == "total" else name)


def measure(
    layer: Layer,
    device: torch.device,
    sparsities: Sequence[float],
    backends: Sequence[str],
    seconds: float | None = None,
) -> Timed:
    """All of them in turn. `seconds`: for the turns, the layer's own unless said.

    Raises AssertionError when a side does not agree with float64.
    """
    tensors = Tensors.random(layer.spec, layer.input_shape, device)
    by_module = MODULE in operations_on(device)
    laid_out = {layout: tensors.laid_out(layout) for layout in layouts(layer.spec)}
    found: dict[str, Side] = {}
    differences: dict[tuple[str, float], dict[str, float]] = {}
    for layout, own in laid_out.items():
        x, weight, grad_out = given = own.masked(own.chances >= DENSE_SPARSITY)
        name = dense_name(layout)
        if by_module:
            found[name] = step(dense_module(layer.spec, weight), x, grad_out)
        found[operators_of(name)] = dense_layer(layer.spec, *given)
        found[_one_by_one(name)] = dense_gradients(layer.spec, *given)
    masks = {sparsity: tensors.chances >= sparsity for sparsity in sparsities}
    for sparsity, mask in masks.items():
        exact = tensors.exact(layer.spec, mask)
        for layout, own in laid_out.items():
            x, weight, grad_out = given = own.masked(mask)
            dense = {"forward": dense_layer(layer.spec, *given)["forward"], **dense_gradients(layer.spec, *given)}
            dense |= step(dense_module(layer.spec, weight), x, grad_out) if by_module else {}
            differences[dense_name(layout), sparsity] = _errors(layer, dense, exact, mask)
            for backend in backends:
                name = name_of(backend, sparsity, layout)
                whole: Side = {}
                if by_module:
                    whole = found[name] = step(sparse_module(backend, layer.spec, mask, weight), x, grad_out)
                operators = found[operators_of(name)] = sparse_layer(backend, layer.spec, mask, *given)
                differences[name, sparsity] = _errors(layer, {**operators, **whole}, exact, mask)
    if layer.packing and "cpp" in backends:
        found["packing"] = packing("cpp", layer.spec, masks[max(masks)])
    contest = Contest(layer.name, found, stopwatch.of(device))
    return Timed(layer, device, contest.run(layer.seconds if seconds is None else seconds), differences, masks)


def findings(timed: Timed, ceilings: Ceilings) -> Findings:
    """The operations of every side, and what goes into the file of the CPU's figures."""
    rows = [] if timed.device.type == "cuda" else rows_of(timed)
    summary = [] if timed.device.type == "cuda" else timed.times.summary()
    return Findings(rows, summary, operations(timed, ceilings))


def operations(timed: Timed, ceilings: Ceilings) -> list[Operation]:
    """A line for each sparsity, operation and side: dense PyTorch in the layout that it is faster in for the operation.

    Ours is shown for contiguous tensors, auto for those of the layout that dense is faster in, all in all: where a user
    who measures would have the network.
    """
    layer, found = timed.layer, []
    for sparsity, mask in timed.masks.items():
        works = work.of_layer(layer.spec, mask, layer.input_shape)
        for name in operations_on(timed.device):
            dense = {layout: timed.seconds(dense_name(layout), name) for layout in layouts(layer.spec)}
            best = min(dense, key=lambda layout: min(dense[layout]))
            passes = (name,) if name in PASSES else PASSES
            checked = (MODULE,) if name == MODULE else passes
            chosen = {("dense", best): dense_name(best)} | _ours(timed, sparsity)
            for (backend, layout), side in chosen.items():
                found.append(
                    operation(
                        (str(timed.device), layer.name, sparsity, name),
                        (backend, layout),
                        timed.seconds(side, name),
                        dense[best],
                        [works[each] for each in passes],
                        ceilings,
                        max(timed.errors[side, sparsity][each] for each in checked),
                    )
                )
    return found


def _ours(timed: Timed, sparsity: float) -> dict[tuple[str, str], str]:
    """(backend, layout) -> side, of those that are shown."""
    found = {}
    for side, at in timed.errors:
        backend, _, layout = side.partition(f" at {sparsity:.0%}, ")
        if at == sparsity and layout == (timed.dense_layout if backend == "auto" else "contiguous"):
            found[backend, layout] = side
    return found


def rows_of(timed: Timed) -> list[Row]:
    """Cpp and auto against dense PyTorch's better layout, by the module; operators with a goal; packing."""
    layer, times = timed.layer, timed.times
    against = dense_name(timed.dense_layout)
    rows = []
    for sparsity in timed.masks:
        goal = layer.goals[sparsity]
        if (ours := name_of("cpp", sparsity, "contiguous")) in times.seconds:
            others = [
                times.row(name_of("cpp", sparsity, layout), against, sparsity) for layout in layouts(layer.spec)[1:]
            ]
            notes = [_kernels(timed, "cpp", sparsity), *(f"channels_last {row.by_minimum:.2f}" for row in others)]
            rows.append(times.row(ours, against, sparsity, goal, ", ".join(notes)))
            if goal := layer.operator_goals.get(sparsity):
                rows.append(times.row(operators_of(ours), operators_of(against), sparsity, goal))
        if (ours := name_of("auto", sparsity, timed.dense_layout)) in times.seconds:
            rows.append(times.row(ours, against, sparsity, NEVER_SLOWER, _kernels(timed, "auto", sparsity)))
    if "packing" in times.seconds:
        sparsity = max(timed.masks)  # Where a step is the shortest.
        step = name_of("cpp", sparsity, "contiguous")
        note = f"{TEN_STEPS} steps over packing"
        rows.append(times.row("packing", step, sparsity, FASTER_PACKING, note, times=TEN_STEPS))
    return rows


def _kernels(timed: Timed, backend: str, sparsity: float) -> str:
    """The names of what computed the passes of a layer."""
    return " and ".join(
        dict.fromkeys(kernels_of(backend, timed.layer.spec, timed.masks[sparsity], timed.layer.input_shape))
    )


def kernels_of(backend: str, spec: LayerSpec, mask: Tensor, input_shape: tuple[int, ...]) -> list[str]:
    """What computes the passes of a layer in float32: kernels of cpp by its rule, or what auto chose in any layout."""
    made = registry.get(backend)
    if isinstance(made, CppBackend):
        plan = made.pack(Pattern.from_mask(mask), spec)
        return [made.kernels(each, plan, torch.float32, input_shape).name for each in PASSES]
    if not isinstance(made, AutoBackend):
        return [backend] * len(PASSES)
    nnz = int(mask.sum())
    wanted = (spec, nnz, input_shape)
    return [each.backend for key, each in made.choices.layers.items() if (key.spec, key.nnz, key.input_shape) == wanted]


def operations_on(device: torch.device) -> tuple[str, ...]:
    """Of OPERATIONS those that are timed on `device`, the most inclusive one last."""
    return OPERATIONS if device.type == "cpu" else OPERATIONS[:-1]


def name_of(backend: str, sparsity: float, layout: str) -> str:
    """Of one of our sides."""
    return f"{backend} at {sparsity:.0%}, {layout}"


def dense_name(layout: str) -> str:
    """Of a side of dense PyTorch."""
    return f"dense, {layout}"


def operators_of(side: str) -> str:
    """Of the side that is the operators of another's module."""
    return f"operators of {side}"


def _one_by_one(dense: str) -> str:
    return f"one gradient at a time, {dense}"


def _errors(layer: Layer, side: Side, exact: Mapping[str, Tensor], mask: Tensor) -> dict[str, float]:
    """Of the operators of a side, and of its module, whose error is the largest of its three results."""
    on_gpu = mask.is_cuda
    bound = TOLERANCE[float32_multiplied_in(layer.spec)] if on_gpu else TOLERANCE["cpu"]
    results = {name: call() for name, call in side.items()}
    whole = results.pop(MODULE, None)
    found = errors(layer.name, results, exact, mask, bound)
    if whole is not None:
        by_module = dict(zip(PASSES, whole, strict=True))
        found[MODULE] = max(errors(f"{layer.name}, module", by_module, exact, mask, bound).values())
    return found
