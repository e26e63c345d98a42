"""The contest of one layer: dense PyTorch, and ours at each sparsity, each in both memory formats."""

from __future__ import annotations

import torch
from torch import Tensor

from bench import sides
from bench.cases import DENSE_SPARSITY, FASTER_PACKING, NEVER_SLOWER, TEN_STEPS, Layer
from bench.measure import Contest, Findings, Side

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TOLERANCE = 1e-4


def contest(layer: Layer) -> Contest:
    """Raises AssertionError when ours does not agree with dense PyTorch."""
    generator = torch.Generator().manual_seed(0)
    spec = layer.spec
    size = spec.output_size(*layer.input_shape[2:]) if spec.kind == "conv2d" else ()
    x = torch.randn(layer.input_shape, generator=generator)
    weight = torch.randn(spec.weight_shape, generator=generator) / x[0].numel() ** 0.5
    grad_out = torch.randn((layer.input_shape[0], spec.out_channels, *size), generator=generator)
    chances = torch.rand(spec.weight_shape, generator=generator)

    dense = weight * (chances >= DENSE_SPARSITY)
    found: dict[str, Side] = {}
    for layout in _layouts(layer):
        found[_dense(layout)] = sides.dense_layer(spec, *_laid_out(layout, x, dense, grad_out))
    for sparsity in layer.goals:
        mask = chances >= sparsity
        own = {
            name_of(backend, sparsity, layout): sides.sparse_layer(
                backend, spec, mask, *_laid_out(layout, x, weight, grad_out)
            )
            for backend in (["cpp", "auto"] if layer.auto else ["cpp"])
            for layout in _layouts(layer)
        }
        _check(layer.name, own, sides.dense_layer(spec, x, weight * mask, grad_out), mask)
        found |= own
    if layer.packing:
        found["packing"] = sides.packing("cpp", spec, chances >= max(layer.goals))
    return Contest(layer.name, found)


def findings(layer: Layer, contest: Contest) -> Findings:
    """The rows, when the contest is over: our tensors contiguous, against the better of dense PyTorch's layouts."""
    against = contest.best(_dense(layout) for layout in _layouts(layer))
    rows = []
    for sparsity, goal in layer.goals.items():
        others = [contest.row(name_of("cpp", sparsity, layout), against, sparsity) for layout in _layouts(layer)[1:]]
        note = ", ".join(f"channels_last {row.by_minimum:.2f}" for row in others)
        rows.append(contest.row(name_of("cpp", sparsity, "contiguous"), against, sparsity, goal, note))
        if layer.auto:
            # In the layout that dense is faster in, where a user who measures would have the network.
            (layout,) = [layout for layout in _layouts(layer) if against == _dense(layout)]
            rows.append(contest.row(name_of("auto", sparsity, layout), against, sparsity, NEVER_SLOWER))
    if layer.packing:
        sparsity = max(layer.goals)  # Where a step is the shortest.
        step = name_of("cpp", sparsity, "contiguous")
        note = f"{TEN_STEPS} steps over packing"
        rows.append(contest.row("packing", step, sparsity, FASTER_PACKING, note, times=TEN_STEPS))
    return Findings(rows, contest.summary())


def _layouts(layer: Layer) -> list[str]:
    return list(LAYOUTS) if layer.spec.kind == "conv2d" else ["contiguous"]


def name_of(backend: str, sparsity: float, layout: str) -> str:
    """Of one of our sides."""
    return f"{backend} at {sparsity:.0%}, {layout}"


def _dense(layout: str) -> str:
    return f"dense, {layout}"


def _laid_out(layout: str, *tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous(memory_format=LAYOUTS[layout]) for tensor in tensors]


def _check(case: str, own: dict[str, Side], dense: Side, mask: Tensor) -> None:
    grad_input, grad_weight = dense["backward"]()
    expected = {"forward": dense["forward"](), "grad_input": grad_input, "grad_weight": grad_weight[mask]}
    for name, side in own.items():
        for part, call in side.items():
            error = sides.relative_error(call(), expected[part])
            assert error < TOLERANCE, f"{case}, {name}, {part}: relative error {error:.2g} against dense PyTorch"
