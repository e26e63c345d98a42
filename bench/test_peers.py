"""Layers beside what others would run them by, quiet and beside a busy process: `-m peers`, in about seven minutes.

A peer that is not installed is skipped, and the line that installs it said.
"""

from __future__ import annotations

import os

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.peers import PeerCase
from bench.contests import peers
from bench.suite import selection
from bench.suite.run import Suite

pytestmark = [pytest.mark.cpu, pytest.mark.layer, pytest.mark.peers]


@pytest.mark.usefixtures("cpp")
@pytest.mark.benchmark(group="peers: all sides in turn, three times, quiet and beside a busy process")
@pytest.mark.parametrize("case", selection.peers())
def test_peers(benchmark: BenchmarkFixture, suite: Suite, case: PeerCase) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not let a process choose its core, as Linux does")
    suite.peers += benchmark.pedantic(peers.measure, (case,))
