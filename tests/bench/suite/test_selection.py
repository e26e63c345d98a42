"""What `pytest bench/ --benchmark-only` collects, and what its options and markers leave of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.cases.engines import ENGINE_CASES
from bench.cases.peers import PEER_CASES
from bench.sides.peers import Peer
from bench.suite import selection
from lth_sparse import backends

ROOT = Path(__file__).resolve().parents[3]


def collected(*options: str) -> list[str]:
    """Names of the cases."""
    # Benchmarks refuse to be run by pytest-xdist, whose workers may be running this test.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench/", "--benchmark-only", "--collect-only", "-q", *options],
        cwd=ROOT,
        env=alone,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"::(\w+\[.*\])$", done.stdout, re.MULTILINE)


def test_the_core_is_what_runs_unless_more_is_asked_for() -> None:
    core, full = collected(), collected("--full")
    assert set(core) < set(full)
    assert "test_layer[cpu-c64-90-grad_weight-dense]" in core
    assert "test_layer[cpu-c64-90-module-dense]" in core
    assert "test_training_step[cpu-vgg16-90-dense]" in core
    assert not any("batch-1" in name or "avx2" in name or "throughput" in name for name in core)
    assert "test_layer[cpu-c64-batch-1-90-total-dense]" in full
    assert not any("peers" in name for name in full)
    if not backends()["cpp"]:
        sides = {name.rpartition("-")[2] for name in core if "cpu-c64-90-grad_weight" in name}
        assert sides == {"dense]", "auto]", "cpp]"}


def test_peers_run_when_they_are_named() -> None:
    layers, networks = (collected("-m", marker) for marker in ("peers", "inference_peers"))
    assert {f"test_peers[{case}]" for case in PEER_CASES} <= set(layers)
    assert {f"test_inference_peers[{case}]" for case in ENGINE_CASES} <= set(networks)
    assert not set(layers) & set(networks)


def test_a_peer_that_is_not_installed_is_one_case_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(selection.PEERS, "Some Peer", Peer(modules=("no_such_module",), install="pip install it"))
    (skipped,) = [case for case in selection.peers() if case.id == "Some-Peer"]
    (mark,) = skipped.marks
    assert mark.kwargs["reason"] == "Some Peer: no_such_module not installed: pip install it"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so that nothing of it is skipped")
def test_what_cannot_run_here_is_one_case_with_its_reason() -> None:
    (gpu,) = [case for case in selection.layers() if case.id == "gpu"]
    assert [mark.kwargs["reason"] for mark in gpu.marks if mark.name == "skip"] == [selection.NO_GPU]
    (triton,) = [case for case in selection.layers() if case.id == "triton"]
    (reason,) = [mark.kwargs["reason"] for mark in triton.marks if mark.name == "skip"]
    assert reason.startswith("triton: ")
