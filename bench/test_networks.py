"""Whole training steps, and the memory that they take: masked dense PyTorch and ours.

A step is the forward pass, the loss, the backward pass, SGD with momentum, and for masked dense the masks. The auto
backend chooses before it is timed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import worker
from bench.cases.goals import DENSE_SPARSITY, SMALLER_MEMORY
from bench.cases.networks import NETWORKS, Network
from bench.contests import networks
from bench.contests.memory import memory
from bench.suite import selection
from bench.suite.replay import CLOCK
from bench.suite.run import Suite
from bench.suite.selection import Place
from bench.timing.row import Findings

pytestmark = pytest.mark.e2e


def timed(place: Place, suite: Suite) -> Findings:
    """The network at `place`: all its cases that were selected."""
    assert isinstance(place.case, Network)
    sparsities = sorted({arguments["sparsity"] for arguments in suite.selected(place)})
    found = networks.measure(place.case, place.device, sparsities, selection.backends(place.device))
    return networks.findings(found, suite.ceilings(place.device))


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("place", "sparsity", "side"), selection.networks())
def test_training_step(benchmark: BenchmarkFixture, suite: Suite, place: Place, sparsity: float, side: str) -> None:
    found = suite.once(place, lambda: timed(place, suite))
    CLOCK.replay(benchmark, found.operation(sparsity, "step", side))


@pytest.mark.cpu
@pytest.mark.full
@pytest.mark.usefixtures("cpp")
@pytest.mark.benchmark(group="memory of training steps: the processes of both sides")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_memory(benchmark: BenchmarkFixture, suite: Suite, network: Network) -> None:
    def both() -> dict[str, dict[str, float]]:
        return {backend: worker.call("memory", str(network), backend) for backend in ("dense", "cpp")}

    peaks = benchmark.pedantic(both)
    suite.add(memory(f"{network}, memory", DENSE_SPARSITY, peaks, SMALLER_MEMORY))
