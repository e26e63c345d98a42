"""What lies between convolutions: the operators that lth.fuse puts there, beside PyTorch's modules."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.activations import ACTIVATIONS, Activation
from bench.contests import activations
from bench.suite.run import Suite

pytestmark = [pytest.mark.cpu, pytest.mark.layer]


@pytest.mark.usefixtures("cpp")
@pytest.mark.benchmark(group="between layers: both memory formats, fused and not, in turn")
@pytest.mark.parametrize(
    "case",
    [pytest.param(each, id=str(each), marks=[pytest.mark.full] if each.full else []) for each in ACTIVATIONS],
)
def test_activation(benchmark: BenchmarkFixture, suite: Suite, case: Activation) -> None:
    suite.add(benchmark.pedantic(lambda: activations.findings(case, activations.measure(case))))
