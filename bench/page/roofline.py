"""The roofline: what each side reached, by the operations that a byte of memory traffic has to pay for."""

from __future__ import annotations

import math
import re
from typing import Any

from bench.cases import LAYERS, Layer
from bench.page import words
from bench.page.charts import Chart, Line

PASSES = 3
"""The forward pass and both gradients: as many products each."""
FLOAT, INDEX = 4, 4
"""Bytes."""


def roofline(name: str, title: str, found: dict[str, Any]) -> Chart:
    """Layers at batch 128 in the contiguous layout: dense PyTorch on all weights, the C++ kernels on live ones.

    Operations are those of the weights that count, padding included. Bytes are the least that has to move: each pass
    reads two of input, weight and output and writes the third; a live weight has an index.
    """
    cases = {layer.name: layer for layer in LAYERS if layer.input_shape[0] == 128 and not layer.avx2}
    ours: list[Line] = []
    theirs: list[Line] = []
    for number, (case, layer) in enumerate(cases.items()):
        points = sorted(
            _point(layer, 1 - int(at[1]) / 100, FLOAT + INDEX, side["minimum"])
            for side in found["sides"]
            if side["case"] == case and (at := re.fullmatch(r"cpp at (\d+)%, contiguous", side["side"]))
        )
        dense = [_point(layer, 1.0, FLOAT, side["minimum"]) for side in found["sides"] if _is_dense(side, case)]
        if points and dense:
            label = words.shape(layer.spec, layer.input_shape)
            x, y = max(dense, key=lambda at: at[1])
            ours.append(Line.through(label, points, color=number))
            theirs.append(Line("" if theirs else "dense PyTorch", (x,), (y,), style="s", color=number))
    lines = [*ours, *theirs]
    places = [place for line in lines for place in line.x]
    roof = _roof(found.get("ceilings"), min(places, default=1.0), max(places, default=1.0))
    return Chart(name, title, "FLOP per byte", "GFLOP/s on live weights", (*lines, *roof), x_axis="log", y_log=True)


def _is_dense(side: dict[str, Any], case: str) -> bool:
    return bool(side["case"] == case and side["side"].startswith("dense, "))


def _point(layer: Layer, density: float, bytes_a_weight: int, milliseconds: float) -> tuple[float, float]:
    """(operations a byte, GFLOP/s)."""
    spec, shape = layer.spec, layer.input_shape
    height, width = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else (1, 1)
    positions = shape[0] * height * width
    weights = density * math.prod(spec.weight_shape)
    operations = PASSES * 2 * positions * weights
    moved = FLOAT * (math.prod(shape) + positions * spec.out_channels) + bytes_a_weight * weights
    return operations / (PASSES * moved), operations / milliseconds / 1e6


def _roof(ceilings: dict[str, float] | None, low: float, high: float) -> list[Line]:
    if ceilings is None:
        return []
    peak, bandwidth = ceilings["fma_gflops"], ceilings["bandwidth_gbs"]
    corner = peak / bandwidth
    x = sorted({min(low, corner), corner, max(high, corner)})
    return [Line("ceiling, measured", tuple(x), tuple(min(peak, bandwidth * at) for at in x), "-", color=-1)]
