"""One layer: dense PyTorch, and ours at each sparsity, each in both memory formats, timed in turn and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases.goals import DENSE_SPARSITY, FASTER_PACKING, NEVER_SLOWER, TEN_STEPS
from bench.cases.layers import Layer
from bench.cases.layouts import LAYOUTS
from bench.sides import peers
from bench.sides.dense import dense_gradients, dense_layer
from bench.sides.sparse import packing, sparse_layer
from bench.timing import stopwatch, work
from bench.timing.ceilings import Ceilings
from bench.timing.contest import Contest, Side, Times
from bench.timing.operation import Operation, operation
from bench.timing.row import Findings, Row
from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.backends.auto import AutoBackend
from lth_sparse.backends.base import float32_multiplied_in
from lth_sparse.backends.cpp import CppBackend
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.verification.judgement import relative

TOLERANCE = {"cpu": 3e-5, "ieee": 1e-4, "tf32": 1e-2}
"""The relative error against float64 that no side may exceed: on the CPU twice dense PyTorch's largest here, and more
than Winograd's algorithm is allowed; on a GPU by what float32 is multiplied in."""
PASSES = ("forward", "grad_input", "grad_weight")
OPERATIONS = (*PASSES, "total")
"""`total`: a forward pass and both gradients, which dense PyTorch computes in one call, as autograd does."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tensors:
    """What every side of one layer is given, and `chances`: a weight is live at sparsities up to its own."""

    x: Tensor
    weight: Tensor
    grad_out: Tensor
    chances: Tensor

    @classmethod
    def random(cls, layer: Layer, device: torch.device) -> Tensors:
        """The same numbers on every device."""
        generator = torch.Generator().manual_seed(0)
        spec = layer.spec
        size = spec.output_size(*layer.input_shape[2:]) if spec.kind == "conv2d" else ()
        x = torch.randn(layer.input_shape, generator=generator)
        weight = torch.randn(spec.weight_shape, generator=generator) / x[0].numel() ** 0.5
        grad_out = torch.randn((layer.input_shape[0], spec.out_channels, *size), generator=generator)
        chances = torch.rand(spec.weight_shape, generator=generator)
        return cls(*(tensor.to(device) for tensor in (x, weight, grad_out, chances)))

    def laid_out(self, layout: str) -> Tensors:
        """The same in `layout`."""
        x, weight, grad_out = (
            tensor.contiguous(memory_format=LAYOUTS[layout]) for tensor in (self.x, self.weight, self.grad_out)
        )
        return Tensors(x, weight, grad_out, self.chances)

    def masked(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first three; what is pruned of the weight is 0."""
        return self.x, self.weight.clone().masked_fill_(~mask, 0), self.grad_out


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
        return min(layouts(self.layer), key=lambda layout: min(self.times.of(dense_name(layout))))

    def seconds(self, side: str, name: str) -> list[float]:
        """Of the operation called `name`, turn by turn."""
        if name in ("grad_input", "grad_weight") and side.startswith("dense, "):
            side = _one_by_one(side)
        return self.times.of(side, None if name == "total" else name)


def measure(
    layer: Layer,
    device: torch.device,
    sparsities: Sequence[float],
    backends: Sequence[str],
    asked_peers: Sequence[str] = (),
    seconds: float | None = None,
) -> Timed:
    """All of them in turn. `seconds`: for the turns, the layer's own unless said.

    Raises AssertionError when a side does not agree with float64.
    """
    tensors = Tensors.random(layer, device)
    laid_out = {layout: tensors.laid_out(layout) for layout in layouts(layer)}
    found: dict[str, Side] = {}
    errors: dict[tuple[str, float], dict[str, float]] = {}
    for layout, own in laid_out.items():
        given = own.masked(own.chances >= DENSE_SPARSITY)
        found[dense_name(layout)] = dense_layer(layer.spec, *given)
        found[_one_by_one(dense_name(layout))] = dense_gradients(layer.spec, *given)
    masks = {sparsity: tensors.chances >= sparsity for sparsity in sparsities}
    for sparsity, mask in masks.items():
        exact = _exact(layer, tensors, mask)
        for layout, own in laid_out.items():
            given = own.masked(mask)
            dense = dense_gradients(layer.spec, *given)
            dense = {"forward": dense_layer(layer.spec, *given)["forward"], **dense}
            errors[dense_name(layout), sparsity] = _errors(layer, dense, exact, mask)
            for backend in backends:
                name = name_of(backend, sparsity, layout)
                found[name] = sparse_layer(backend, layer.spec, mask, own.x, own.weight, own.grad_out)
                errors[name, sparsity] = _errors(layer, found[name], exact, mask)
        for peer in asked_peers:
            name = name_of(peer, sparsity, "contiguous")
            x, weight, _ = tensors.masked(mask)
            found[name] = peers.PEERS[peer].side(layer.spec, mask, x, weight)
            errors[name, sparsity] = _errors(layer, found[name], exact, mask)
    if layer.packing and "cpp" in backends:
        found["packing"] = packing("cpp", layer.spec, masks[max(masks)])
    contest = Contest(layer.name, found, stopwatch.of(device))
    return Timed(layer, device, contest.run(layer.seconds if seconds is None else seconds), errors, masks)


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
        for name in OPERATIONS:
            dense = {layout: timed.seconds(dense_name(layout), name) for layout in layouts(layer)}
            best = min(dense, key=lambda layout: min(dense[layout]))
            passes = PASSES if name == "total" else (name,)
            chosen = {("dense", best): dense_name(best)} | _ours(timed, sparsity, name)
            for (backend, layout), side in chosen.items():
                found.append(
                    operation(
                        (str(timed.device), layer.name, sparsity, name),
                        (backend, layout),
                        timed.seconds(side, name),
                        dense[best],
                        [works[each] for each in passes],
                        ceilings,
                        max(timed.errors[side, sparsity][each] for each in passes),
                    )
                )
    return found


def _ours(timed: Timed, sparsity: float, name: str) -> dict[tuple[str, str], str]:
    """(backend, layout) -> side, of those that are shown and have the operation."""
    found = {}
    for side, at in timed.errors:
        backend, _, layout = side.partition(f" at {sparsity:.0%}, ")
        parts = timed.times.seconds[side]
        has_it = len(parts) == len(PASSES) if name == "total" else name in parts
        if at == sparsity and has_it and layout == (timed.dense_layout if backend == "auto" else "contiguous"):
            found[backend, layout] = side
    return found


def rows_of(timed: Timed) -> list[Row]:
    """Cpp and auto against dense PyTorch's better layout, and packing."""
    layer, times = timed.layer, timed.times
    against = dense_name(timed.dense_layout)
    rows = []
    for sparsity in timed.masks:
        goal = layer.goals[sparsity]
        if (ours := name_of("cpp", sparsity, "contiguous")) in times.seconds:
            others = [times.row(name_of("cpp", sparsity, layout), against, sparsity) for layout in layouts(layer)[1:]]
            notes = [_kernels(timed, "cpp", sparsity), *(f"channels_last {row.by_minimum:.2f}" for row in others)]
            rows.append(times.row(ours, against, sparsity, goal, ", ".join(notes)))
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


def layouts(layer: Layer) -> list[str]:
    """Memory formats that make a difference."""
    return list(LAYOUTS) if layer.spec.kind == "conv2d" else ["contiguous"]


def name_of(backend: str, sparsity: float, layout: str) -> str:
    """Of one of our sides, or of a peer's."""
    return f"{backend} at {sparsity:.0%}, {layout}"


def dense_name(layout: str) -> str:
    """Of a side of dense PyTorch."""
    return f"dense, {layout}"


def _one_by_one(dense: str) -> str:
    return f"one gradient at a time, {dense}"


def _exact(layer: Layer, tensors: Tensors, mask: Tensor) -> dict[str, Tensor]:
    """In float64, by the specification."""
    x, weight, grad_out = (tensor.double() for tensor in (tensors.x, tensors.weight, tensors.grad_out))
    values = weight[mask]
    return {
        "forward": reference.forward(x, values, None, mask, layer.spec),
        "grad_input": reference.grad_input(grad_out, values, mask, layer.spec, layer.input_shape),
        "grad_weight": reference.grad_weight(x, grad_out, mask, layer.spec),
    }


def _errors(layer: Layer, side: Side, exact: Mapping[str, Tensor], mask: Tensor) -> dict[str, float]:
    found = {}
    for name, call in side.items():
        result = call()
        live = result[mask] if result.shape == mask.shape and name == "grad_weight" else result
        found[name] = relative(live, exact[name])
        bound = TOLERANCE[float32_multiplied_in(layer.spec)] if result.is_cuda else TOLERANCE["cpu"]
        assert found[name] < bound, f"{layer.name}, {name}: relative error {found[name]:.2g} against float64"
    return found
