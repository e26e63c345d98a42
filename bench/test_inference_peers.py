"""Pruned networks beside other engines for inference: `-m inference_peers`, a minute or two a case.

An engine that is not installed is left out, and the line that installs it said.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.engines import EngineCase
from bench.contests import engines
from bench.suite import selection
from bench.suite.run import Suite

pytestmark = [pytest.mark.cpu, pytest.mark.inference_peers]


@pytest.mark.usefixtures("cpp")
@pytest.mark.benchmark(group="engines: all sides in turn")
@pytest.mark.parametrize("case", selection.engines())
def test_inference_peers(benchmark: BenchmarkFixture, suite: Suite, case: EngineCase) -> None:
    suite.engines += benchmark.pedantic(engines.measure, (case,))
