"""Forward and backward pass of one layer, dense PyTorch and ours at each sparsity, a turn of each in turn.

Backward means the gradients of the input and of the weight. Dense is timed in both memory formats, and the better one
counts; ours is given contiguous tensors, and its ratio for channels_last ones stands in the note.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import layers, worker
from bench.cases import LAYERS, Layer
from bench.measure import Findings

pytestmark = pytest.mark.usefixtures("cpp")


@pytest.mark.benchmark(group="layers: one turn over all sides")
@pytest.mark.parametrize("layer", [layer for layer in LAYERS if not layer.avx2], ids=str)
def test_layer(benchmark: BenchmarkFixture, findings: Findings, layer: Layer) -> None:
    contest = layers.contest(layer)
    turns = contest.warm_up(layer.seconds)
    benchmark.pedantic(contest.turn, rounds=turns)
    findings.add(layers.findings(layer, contest))


@pytest.mark.benchmark(group="layers, AVX2 on both sides: a process from start to end")
@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.avx2], ids=str)
def test_layer_limited_to_avx2(benchmark: BenchmarkFixture, findings: Findings, layer: Layer) -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no AVX2")
    findings.add(benchmark.pedantic(worker.findings_of_layer, (layer.name,)))
