"""`--on ray`: a cluster of two nodes on this machine, each of processes of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import error_line
from tests.experiments.conftest import Called
from tests.experiments.engines.conftest import FOLDERS, meanwhile, processes, results, undisturbed

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster(held: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one core each, beside a head; their processes look for modules in `held` too."""
    monkeypatch.setenv("RAY_py_gcs_connect_timeout_s", "300")  # On a busy machine the head takes its time.
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(held)]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes(timeout=300)
    yield made
    made.shutdown()


@pytest.mark.long
def test_a_sweep_outlives_a_node(held: Path, swept: Called, cluster: Any) -> None:
    import ray

    out = held / "out"
    (held / "wait").touch()

    def lose_a_node() -> None:
        own = ray.get_runtime_context().get_node_id()  # With which the sweep itself would end.
        other = next(node for node in cluster.worker_nodes if node.node_id != own)
        cluster.remove_node(other, allow_graceful=False)
        (held / "wait").unlink()

    with meanwhile(lambda: all(processes(out, name) for name in FOLDERS), lose_a_node):
        status, _, error = swept(held / "sweep.yaml", "--out", out, "--on", "ray", "--address", cluster.address)
    assert status == 0, error
    assert "a Ray cluster of 3 nodes, 2 cores" in error
    assert error.count("its process was lost") == 1
    assert sorted(len(processes(out, name)) for name in FOLDERS) == [1, 2]
    assert set((held / "threads").read_text().splitlines()) == {"1 passive 1"}
    assert results(out) == undisturbed(held)
    # As many cores as no node has would be waited for without an end.
    status, _, error = swept(
        held / "sweep.yaml", "--on", "ray", "--address", cluster.address, "--threads-per-job", 2, "--out", held / "no"
    )
    assert (status, "no node of the cluster has 2 cores" in error_line(error)) == (2, True)
    assert not (held / "no").exists()


def test_what_is_missing_is_named(held: Path, swept: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    out = held / "out"
    status, _, error = swept(held / "sweep.yaml", "--out", out, "--on", "ray", "--address", "127.0.0.1:1")
    assert (status, "--on ray: no cluster at 127.0.0.1:1" in error_line(error)) == (2, True)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, error = swept(held / "sweep.yaml", "--out", out, "--on", "ray")
    assert (status, "pip install 'lth_sparse[ray]'" in error_line(error)) == (2, True)
    assert not out.exists()
