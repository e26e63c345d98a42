"""Layers x sparsity x operation x backend: a layer's sides are timed in turn, once for all of its cases.

Dense PyTorch is timed in both memory formats, and the better one counts. `module` is `y = layer(x); y.backward(g)`,
what a program pays; the others are operators alone, `total` a forward pass and both gradients.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import worker
from bench.cases.layers import LAYERS, Layer
from bench.contests import layers
from bench.suite import selection
from bench.suite.replay import CLOCK
from bench.suite.run import Suite
from bench.suite.selection import Place
from bench.timing.row import Findings

pytestmark = pytest.mark.layer


def timed(place: Place, suite: Suite) -> Findings:
    """The layer at `place`: all its cases that were selected."""
    assert isinstance(place.case, Layer)
    asked = suite.selected(place)
    sparsities = sorted({arguments["sparsity"] for arguments in asked})
    ours = [name for name in selection.backends(place.device) if selection.supports(name, place)]
    found = layers.measure(place.case, place.device, sparsities, ours)
    return layers.findings(found, suite.ceilings(place.device))


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("place", "sparsity", "operation", "side"), selection.layers())
def test_layer(
    benchmark: BenchmarkFixture, suite: Suite, place: Place, sparsity: float, operation: str, side: str
) -> None:
    found = suite.once(place, lambda: timed(place, suite))
    CLOCK.replay(benchmark, found.operation(sparsity, operation, side))


@pytest.mark.cpu
@pytest.mark.full
@pytest.mark.usefixtures("cpp")
@pytest.mark.benchmark(group="layers, AVX2 on both sides: a process from start to end")
@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.avx2], ids=str)
def test_layer_limited_to_avx2(benchmark: BenchmarkFixture, suite: Suite, layer: Layer) -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    suite.add(benchmark.pedantic(worker.findings_of_layer, (layer.name,)))
