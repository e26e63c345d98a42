"""How the benchmarks time, and what they make of the times."""

from __future__ import annotations

import pytest
import torch

from bench import layers, tables
from bench.cases import Layer
from bench.ceilings import Ceilings
from bench.measure import Contest, Times
from bench.operation import operation
from bench.stopwatch import HostStopwatch
from bench.work import Work, of_layer
from lth_sparse import backends
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec

TINY = Layer(
    "tiny", LayerSpec("conv2d", 6, 8, (3, 3), (2, 2), (1, 1)), (3, 6, 7, 7), {0.5: None, 0.9: None}, 0.01, packing=True
)
CEILINGS = Ceilings(100.0, 10.0)


def test_sides_take_turns_in_both_orders() -> None:
    called = []
    sides = {name: {"part": lambda name=name: called.append(name)} for name in "abc"}
    times = Contest("case", sides, HostStopwatch()).run(0.0)
    timed = "".join(called)[-3 * len(times.of("a")) :]
    assert timed.startswith("abccbaabc")
    assert all(len(times.of(name)) == len(times.faults[name]) for name in "abc")


def test_a_row_is_minimum_over_minimum_and_median_over_median() -> None:
    seconds = {"ours": {"one": [1.0, 2.0, 1.0], "two": [1.0, 2.0, 3.0]}, "dense": {"all": [8.0, 6.0, 40.0]}}
    row = Times("case", seconds, {"ours": [0, 0, 0], "dense": [0, 5000, 5000]}).row("ours", "dense", 0.9)
    assert (row.by_minimum, row.by_median, row.ratio) == (6 / 2, 8 / 4, 2.0)
    assert "dense 5000" in row.note


def test_an_operation_beside_dense_and_beside_the_ceilings() -> None:
    # 2 ms for 50 million operations and 10 MB: at 100 GFLOP/s and 10 GB/s it is memory that needs the longest, 1 ms.
    found = operation(
        ("cpu", "case", 0.9, "forward"),
        ("cpp", "contiguous"),
        [0.002, 0.004],
        [0.008, 0.006],
        [Work(50e6, 10e6)],
        CEILINGS,
        1e-7,
    )
    assert (found.speedup, found.gflops, found.of_ceiling) == (3.0, 25.0, 0.5)
    assert found.speedup_quartiles == (2.125, 3.375)
    assert found.milliseconds[0] == 2.0
    assert found.as_dict()["turns"] == 2


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (LayerSpec("conv2d", 4, 6, (3, 2), (2, 1), (1, 1), (1, 2), 2), (3, 4, 5, 6)),
        (LayerSpec("linear", 5, 7), (3, 5)),
    ],
    ids=["conv2d", "linear"],
)
def test_work_is_the_products_of_live_weights_and_real_pixels(spec: LayerSpec, shape: tuple[int, ...]) -> None:
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.4
    count = 0
    if spec.kind == "linear":
        count = shape[0] * int(mask.sum())
    else:
        height, width = spec.output_size(*shape[2:])
        for _, _, tap_row, tap_column in mask.nonzero().tolist():
            for y in range(height):
                for x in range(width):
                    row = y * spec.stride[0] + tap_row * spec.dilation[0] - spec.padding[0]
                    column = x * spec.stride[1] + tap_column * spec.dilation[1] - spec.padding[1]
                    count += shape[0] * (0 <= row < shape[2] and 0 <= column < shape[3])
    works = of_layer(spec, mask, shape)
    assert [work.operations for work in works.values()] == [2 * count] * 3
    size = spec.output_size(*shape[2:]) if spec.kind == "conv2d" else ()
    output = torch.Size((shape[0], spec.out_channels, *size)).numel()
    assert works["forward"].moved == 4 * (torch.Size(shape).numel() + output + int(mask.sum()))


def test_every_operation_of_every_side_stands_beside_dense() -> None:
    ours = [name for name in ("auto", "cpp") if not backends()[name]]
    timed = layers.measure(TINY, layers.CPU, (0.5, 0.9), ours, ("torch CSR",))
    found = layers.findings(timed, CEILINGS)
    wanted = {(name, side) for name in layers.OPERATIONS for side in ("dense", *ours)} | {("forward", "torch CSR")}
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
    assert set(timed.times.seconds[side]) == {"forward", "backward"}
    assert timed.seconds(side, "total") == timed.times.of(side)
    assert timed.seconds(side, "grad_input") == timed.times.of(f"one gradient at a time, {side}", "grad_input")


@pytest.mark.parametrize("wrong", ["forward", "grad_input", "grad_weight"])
def test_a_side_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    backend = registry.get("auto")
    right = getattr(backend, wrong)
    monkeypatch.setattr(backend, wrong, lambda *arguments: 1.001 * right(*arguments))
    with pytest.raises(AssertionError, match=f"tiny, {wrong}: relative error 0.001 against float64"):
        layers.measure(TINY, layers.CPU, (0.5,), ["auto"])
