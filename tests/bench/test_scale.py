"""What docs/scale.md is made of: the formulas at a small size, and the tables of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from bench.page import scale as page
from bench.page.sources import read
from bench.scale import __main__ as command
from bench.scale import allreduce, memory, sweeps
from lth_sparse.backends import registry
from tests.memory import STATUS

pytestmark = pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="the C++ kernels cannot be used here")


def small(density: float | None) -> nn.Module:
    return memory.network("resnet18", density)


@pytest.mark.skipif(not STATUS.exists(), reason="there is no /proc/self/status to read")
@pytest.mark.parametrize(("density", "optimizer"), [(None, "SGD"), (0.2, "Adam")])
def test_what_a_network_holds_is_what_the_formula_says(density: float | None, optimizer: str) -> None:
    """In a process of its own, which holds nothing else."""
    formula = memory.worked_out(small(density)).by(optimizer)
    tensors, resident = memory.measured("resnet18", density, optimizer)
    assert tensors == pytest.approx(formula, rel=0.001)
    assert command.check("", "resident set", formula, resident)["held"], (formula, resident)


def test_sparse_training_holds_less_by_what_it_has_less() -> None:
    dense, sparse = (memory.worked_out(small(density)) for density in (None, 0.1))
    assert 0.1 < sparse.values / dense.values < 0.11
    assert (sparse.gradients, sparse.moments) == (sparse.values, 2 * sparse.values)
    assert (dense.masks, dense.plans) == (0, 0)
    # 12 bytes of plan a live weight, and little for the rows.
    assert 12 * 0.1 * sparse.masks == pytest.approx(sparse.plans, rel=0.02)


@pytest.mark.parametrize("density", [None, 0.1])
def test_activations_by_layers_are_those_that_autograd_saves(density: float | None) -> None:
    by_layers, saved = memory.activations(small(density), 64, 2)
    assert command.check("", "activations", by_layers, saved)["held"], (by_layers, saved)


def test_two_processes_reduce_what_the_formula_says() -> None:
    assert allreduce.counted(partial(small, 0.1)) == allreduce.gradient_bytes(small(0.1))


def test_a_ring_by_hand() -> None:
    link = allreduce.Link(speed=100.0, latency=1.0)
    cluster = allreduce.Cluster("", 2, link, allreduce.Link(speed=10.0, latency=3.0), 1)
    assert allreduce.ring_bytes(800, 4) == 1200
    assert allreduce.seconds(800, 2, cluster) == 2 * (1 + 4)  # Two messages of half of it.
    assert allreduce.seconds(800, 4, cluster) == 10 + 2 * (3 + 40)
    assert allreduce.share(allreduce.BATCH / allreduce.IMAGES_A_SECOND) == 0.5


def test_tickets_are_as_large_as_the_formula_says() -> None:
    found = sweeps.tiny_runs()
    assert command.check("", "tickets", found["tickets_by_formula"], found["tickets"])["held"], found
    assert found["files"] > 5
    assert found["bytes"] == sum(found["kinds"].values())


def test_the_committed_file_is_what_the_formulas_give() -> None:
    """Measured once; but what is worked out is worked out anew."""
    found = read().scales["scale-resnet50.json"]
    assert all(row["held"] for row in found["checks"])
    row = next(row for row in found["densities"] if row["density"] == 0.1)
    model = memory.network("resnet50", 0.1)
    again = memory.worked_out(model)
    assert {name: row[name] for name in vars(again)} == pytest.approx(vars(again), rel=1e-3)
    for cluster in allreduce.CLUSTERS:
        assert row["allreduce"][cluster.name] == pytest.approx(
            [allreduce.seconds(allreduce.gradient_bytes(model), gpus, cluster) for gpus in allreduce.GPUS], rel=1e-3
        )


def test_what_is_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read().scales["scale-resnet50.json"]
    monkeypatch.setattr(command, "networks", lambda name, size: found["densities"])
    off = command.check("resnet50, dense", "activations", 100.0, 110.0)
    monkeypatch.setattr(command, "checks", lambda *_: [off])
    tiny = SimpleNamespace(
        tiny_runs=lambda: found["sweep"]["tiny"],
        processes=lambda: found["sweep"]["process_seconds"],
        overview_seconds=lambda runs: {"table": 0.1, "page": 1.0},
        lottery_bytes=sweeps.lottery_bytes,
        RUNS=sweeps.RUNS,
        ROUNDS=sweeps.ROUNDS,
    )
    monkeypatch.setattr(command, "sweeps", tiny)
    assert command.main(["--results", str(tmp_path)]) == 1
    assert "MISSED: activations of resnet50, dense: 110 bytes, by the formula 100" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name == "scale-resnet50.json"
    written: dict[str, Any] = json.loads(path.read_text())
    for table in (page.memory, page.all_reduce, page.sweep, page.checks):
        assert table(written)
