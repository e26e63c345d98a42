"""What lies between convolutions: PyTorch's modules and the fused operators, both formats of each, in turn, checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lth_sparse as lth
from bench.cases.activations import PASSES, Activation
from bench.cases.layouts import LAYOUTS
from bench.contests.layers import CPU, TOLERANCE
from bench.timing import stopwatch
from bench.timing.contest import Contest, Side, Times
from bench.timing.row import Findings, Row
from lth_sparse.verification.judgement import relative

SECONDS = 2.0
TOLERANCE_OF_SUMS = 1e-3
"""Of a BatchNorm's parameters' gradients before a clamp. A number next to 0 may pass ReLU in one precision and not in
the other, and a sum over its channel is then off by its share: dense PyTorch's by 1e-4 here."""


class _Module(nn.Module):
    def __init__(self, case: Activation) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm: nn.Module = nn.BatchNorm2d(case.shape[1]) if case.norm else nn.Identity()
        for parameter in self.norm.parameters():
            parameter.data.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
        # In place, which PyTorch is faster by.
        self.clamp = getattr(nn, case.clamp)(inplace=case.norm) if case.clamp else nn.Identity()
        self.pool: nn.Module = nn.MaxPool2d(2) if case.pools else nn.Identity()
        self.adds = case.adds

    def forward(self, *images: Tensor) -> Tensor:
        out = self.norm(images[0])
        if self.adds:
            out += images[1]
        pooled: Tensor = self.pool(self.clamp(out))
        return pooled


def measure(case: Activation, seconds: float = SECONDS) -> Times:
    """All sides in turn. Raises AssertionError when one does not agree with float64."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(case.shape, generator=generator) for _ in range(1 + case.adds)]
    exact = _results(_Module(case).double(), [image.double() for image in images])
    found: dict[str, Side] = {}
    for layout, memory_format in LAYOUTS.items():
        given = [image.contiguous(memory_format=memory_format) for image in images]
        plain = _Module(case)
        for side, model in (("dense", plain), ("fused", lth.fuse(copy.deepcopy(plain)))):
            for number, (result, expected) in enumerate(zip(_results(model, given), exact, strict=True)):
                error = relative(result, expected)
                of_sums = number > 0 and case.norm and case.clamp
                assert error < (TOLERANCE_OF_SUMS if of_sums else TOLERANCE["ieee"]), (
                    f"{case.name}, {side}, {layout}: relative error {error:.2g} against float64"
                )
            found[f"{side}, {layout}"] = _passes(model, given)
    return Contest(case.name, found, stopwatch.of(CPU)).run(seconds)


def _passes(model: nn.Module, images: Sequence[Tensor]) -> Side:
    given = [image.clone().requires_grad_() for image in images]
    state: dict[str, Any] = {}
    with torch.no_grad():
        grad_out = torch.ones_like(model(*given))

    def forward() -> None:
        state["output"] = model(*given)

    def backward() -> None:
        torch.autograd.grad(state.pop("output"), [*given, *model.parameters()], grad_out)

    return dict(zip(PASSES, (forward, backward), strict=True))


def _results(model: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
    """The output, and gradients that do not turn on what ReLU decides of a number near 0, as those of x do."""
    given = [image.clone().requires_grad_() for image in images]
    output = model(*given)
    # Not ones, whose sum over a BatchNorm's own numbers, the gradient of its weight, is 0.
    gradient = torch.rand(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, list(model.parameters()) or given, gradient)]


def rows(case: Activation, times: Times) -> list[Row]:
    """One for each pass: the fused operator in channels_last, against the better of PyTorch's formats."""
    found = []
    for part in PASSES:
        seconds = {side: {part: times.of(side, part)} for side in times.seconds}
        one = Times(f"{case.name}, {part}", seconds, times.faults)
        against = one.best(f"dense, {layout}" for layout in LAYOUTS)
        other = one.row("fused, contiguous", against, 0.0)
        note = f"contiguous {other.by_minimum:.2f}"
        found.append(one.row("fused, channels_last", against, 0.0, case.goal, note))
    return found


def findings(case: Activation, times: Times) -> Findings:
    """What goes into the file of the CPU's figures."""
    return Findings(rows(case, times), times.summary(), [])
