"""A layer's contest: every side beside dense PyTorch, and none that computes something else."""

from __future__ import annotations

import dataclasses

import pytest

from bench.cases.goals import Goal
from bench.cases.layers import Layer
from bench.contests import layers
from bench.suite import tables
from bench.timing.ceilings import Ceilings
from lth_sparse import backends
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec

TINY = Layer(
    "tiny", LayerSpec("conv2d", 6, 8, (3, 3), (2, 2), (1, 1)), (3, 6, 7, 7), {0.5: None, 0.9: None}, 0.01, packing=True
)
CEILINGS = Ceilings(100.0, 10.0)


def test_every_operation_of_every_side_stands_beside_dense() -> None:
    ours = [name for name in ("auto", "cpp") if not backends()[name]]
    timed = layers.measure(TINY, layers.CPU, (0.5, 0.9), ours)
    found = layers.findings(timed, CEILINGS)
    wanted = {(name, side) for name in layers.OPERATIONS for side in ("dense", *ours)}
    for sparsity in (0.5, 0.9):
        assert {(each.operation, each.side) for each in found.operations if each.sparsity == sparsity} == wanted
    assert all(0 < each.error < 1e-5 and each.of_ceiling > 0 for each in found.operations)
    assert all(each.speedup == 1 for each in found.operations if each.side == "dense")
    printed = tables.operations(found.operations)
    assert [line for line in printed if line.startswith("tiny")] == ["tiny, 50%, cpu", "tiny, 90%, cpu"]
    if "cpp" in ours:
        assert {row.ours.split(" at ")[0] for row in found.rows} == {"cpp", "auto", "packing"}


def test_both_gradients_of_dense_are_one_call_in_total() -> None:
    timed = layers.measure(TINY, layers.CPU, (0.5,), ())
    side = layers.dense_name("contiguous")
    operators = layers.operators_of(side)
    assert set(timed.times.seconds[operators]) == {"forward", "backward"}
    assert timed.seconds(side, "total") == timed.times.of(operators)
    assert timed.seconds(side, "grad_input") == timed.times.of(f"one gradient at a time, {side}", "grad_input")


@pytest.mark.skipif(bool(backends()["cpp"]), reason="the rows are those of cpp")
def test_a_row_is_that_of_the_module_and_operators_with_a_goal_have_their_own() -> None:
    layer = dataclasses.replace(TINY, goals={0.5: Goal(1, 2)}, operator_goals={0.5: Goal(3, 4)}, packing=False)
    timed = layers.measure(layer, layers.CPU, (0.5,), ["cpp"])
    by_module, by_operators = layers.rows_of(timed)
    ours, dense = layers.name_of("cpp", 0.5, "contiguous"), layers.dense_name(timed.dense_layout)
    assert (by_module.ours, by_module.against, by_module.must) == (ours, dense, 1)
    assert by_module == timed.times.row(ours, dense, 0.5, Goal(1, 2), by_module.note)
    assert by_operators.ours == layers.operators_of(ours)
    assert (by_operators.against, by_operators.must) == (layers.operators_of(dense), 3)
    assert set(timed.times.seconds[ours]) == {"module"}


@pytest.mark.parametrize("wrong", ["forward", "grad_input", "grad_weight"])
def test_a_side_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    backend = registry.get("auto")
    right = getattr(backend, wrong)
    monkeypatch.setattr(backend, wrong, lambda *arguments: 1.001 * right(*arguments))
    with pytest.raises(AssertionError, match=f"tiny, {wrong}: relative error 0.001 against float64"):
        layers.measure(TINY, layers.CPU, (0.5,), ["auto"])
