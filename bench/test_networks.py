"""Whole training steps, and the memory that they take: masked dense PyTorch and ours.

A step is the forward pass, the loss, the backward pass, SGD with momentum, and for masked dense the masks. The auto
backend chooses during the warm-up.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import networks, worker
from bench.cases import DENSE_SPARSITY, NETWORKS, SMALLER_MEMORY, Network
from bench.measure import Findings, memory

pytestmark = pytest.mark.usefixtures("cpp")


@pytest.mark.benchmark(group="training steps: one turn over all sides")
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_training_step(benchmark: BenchmarkFixture, findings: Findings, network: Network) -> None:
    contest = networks.contest(network)
    turns = contest.warm_up(network.seconds)
    benchmark.pedantic(contest.turn, rounds=turns)
    findings.add(networks.findings(network, contest))


@pytest.mark.benchmark(group="memory of training steps: the processes of both sides")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_memory(benchmark: BenchmarkFixture, findings: Findings, network: Network) -> None:
    def both() -> dict[str, dict[str, float]]:
        return {backend: worker.call("memory", network.name, backend) for backend in ("dense", "cpp")}

    peaks = benchmark.pedantic(both)
    findings.add(memory(f"{network.name}, memory", DENSE_SPARSITY, peaks, SMALLER_MEMORY))
