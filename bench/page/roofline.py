"""The roofline: what each side reached, by the operations that a byte of memory traffic has to pay for.

Operations are those of the weights that count, padding included: all for dense PyTorch, the live ones for ours. Bytes
are the least that has to move: each pass reads two of input, weight and output and writes the third; a live weight has
an index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.cases.layers import LAYERS
from bench.page import words
from bench.page.charts import Chart, Line
from lth_sparse.plans.layer_spec import LayerSpec

PASSES = 3
"""The forward pass and both gradients: as many products each."""
INDEX = 4
"""Bytes."""


@dataclass(frozen=True)
class Reached:
    """What a layer took in all three passes. `ours`: (density, milliseconds) from sparse to dense; `dense`:
    milliseconds of dense PyTorch. `element`: bytes of a number."""

    spec: LayerSpec
    input_shape: tuple[int, ...]
    ours: list[tuple[float, float]]
    dense: float
    element: int = 4

    def point(self, density: float, bytes_a_weight: int, milliseconds: float) -> tuple[float, float]:
        """(operations a byte, GFLOP/s)."""
        spec, shape = self.spec, self.input_shape
        height, width = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else (1, 1)
        positions = shape[0] * height * width
        weights = density * math.prod(spec.weight_shape)
        operations = 2 * positions * weights
        moved = self.element * (math.prod(shape) + positions * spec.out_channels) + bytes_a_weight * weights
        return operations / moved, PASSES * operations / milliseconds / 1e6


def roofline(name: str, title: str, reached: Sequence[Reached], ceilings: dict[str, float] | None) -> Chart:
    """A line for each layer, from sparse to dense, a square for dense PyTorch, and the roof where it was measured."""
    ours: list[Line] = []
    theirs: list[Line] = []
    for number, layer in enumerate(reached):
        points = [layer.point(density, layer.element + INDEX, taken) for density, taken in layer.ours]
        ours.append(Line.through(words.shape(layer.spec, layer.input_shape), points, color=number))
        dense = [layer.point(1.0, layer.element, layer.dense)]
        theirs.append(Line.through("" if theirs else "dense PyTorch", dense, style="s", color=number))
    lines = [*ours, *theirs]
    places = [place for line in lines for place in line.x]
    roof = _roof(ceilings, min(places, default=1.0), max(places, default=1.0))
    return Chart(name, title, "FLOP per byte", "GFLOP/s on live weights", (*lines, *roof), x_axis="log", y_log=True)


def reached_on_a_cpu(found: dict[str, Any]) -> list[Reached]:
    """Layers at batch 128 in the contiguous layout by the C++ kernels, of the file of `pytest bench/`."""
    made = []
    for layer in LAYERS:
        if layer.input_shape[0] != 128 or layer.avx2:
            continue
        sides = {side["side"]: side["minimum"] for side in found["sides"] if side["case"] == layer.name}
        ours = sorted(
            (1 - int(at[1]) / 100, milliseconds)
            for side, milliseconds in sides.items()
            if (at := re.fullmatch(r"cpp at (\d+)%, contiguous", side))
        )
        dense = [milliseconds for side, milliseconds in sides.items() if side.startswith("dense, ")]
        if ours and dense:
            made.append(Reached(layer.spec, layer.input_shape, ours, min(dense)))
    return made


def _roof(ceilings: dict[str, float] | None, low: float, high: float) -> list[Line]:
    if ceilings is None:
        return []
    peak, bandwidth = ceilings["fma_gflops"], ceilings["bandwidth_gbs"]
    corner = peak / bandwidth
    x = sorted({min(low, corner), corner, max(high, corner)})
    return [Line("ceiling, measured", tuple(x), tuple(min(peak, bandwidth * at) for at in x), "-", color=-1)]
