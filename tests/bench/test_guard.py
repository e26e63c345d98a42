"""The guard against slower kernels: what it compares, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import guard
from bench.cases.activations import ACTIVATIONS, PASSES
from bench.cases.layers import LAYERS
from bench.cases.layouts import LAYOUTS
from bench.contests import activations, tiny_layers
from bench.timing.contest import Times
from bench.timing.row import Row

HERE = {"processor_family": "AuthenticAMD family 25 model 17", "instruction_set": "avx512", "threads": 2}
OURS = "cpp at 90%, contiguous"


def ratio(by_minimum: float, case: str = "c128") -> Row:
    return Row(case, 0.9, OURS, "dense, contiguous", by_minimum, by_minimum)


@pytest.mark.parametrize(("now", "fell"), [(3.76, False), (3.74, True), (9.0, False)])
def test_a_ratio_may_fall_by_a_quarter(now: float, fell: bool) -> None:
    (found,) = guard.compare([ratio(now)], [vars(ratio(5.0))])
    assert found.fell is fell
    assert ("FELL" in str(found)) is fell


def test_a_ratio_is_compared_with_its_own_case_alone() -> None:
    (found,) = guard.compare([ratio(1.0)], [vars(ratio(5.0, case="c256"))])
    assert found.committed is None
    assert not found.fell


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, True),
        ({"processor": "another name"}, True),
        ({"processor_family": "AuthenticAMD family 25 model 1"}, False),
        ({"instruction_set": "avx2"}, False),
        ({"threads": 4}, False),
    ],
)
def test_only_a_machine_like_this_one_counts(tmp_path: Path, changed: dict[str, Any], known: bool) -> None:
    file = {"measured_on": HERE | changed, "rows": [vars(ratio(5.0))]}
    (tmp_path / "cpu-some.json").write_text(json.dumps(file))
    assert bool(guard.committed_rows(HERE, tmp_path)) is known


def test_a_file_from_before_the_family_was_written_is_of_no_known_machine(tmp_path: Path) -> None:
    file = {"measured_on": {"instruction_set": "avx512", "threads": 2}, "rows": [vars(ratio(5.0))]}
    (tmp_path / "cpu-old.json").write_text(json.dumps(file))
    assert guard.committed_rows(HERE, tmp_path) == []
    # Where Linux does not say what the processor is, nothing is like it, not even another such machine.
    file["measured_on"]["processor_family"] = ""
    (tmp_path / "cpu-old.json").write_text(json.dumps(file))
    assert guard.committed_rows(HERE | {"processor_family": ""}, tmp_path) == []


def test_the_fused_operator_is_guarded_by_the_name_that_the_suite_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = ACTIVATIONS[0]
    parts = {part: [1.0, 1.0] for part in PASSES}
    sides = [f"{side}, {layout}" for side in ("dense", "fused") for layout in LAYOUTS]
    times = Times(case.name, dict.fromkeys(sides, parts), {side: [0, 0] for side in sides})
    monkeypatch.setattr(activations, "measure", lambda *_: times)
    committed = [vars(row) for row in activations.findings(case, times).rows]
    (found,) = guard.compare([guard._fused(1.0)], committed)
    assert found.committed == 1.0
    assert not case.full


def test_what_is_guarded_is_measured_by_the_suite() -> None:
    known = {(layer.name, sparsity) for layer in LAYERS for sparsity in layer.goals}
    assert set(guard.GUARDED) <= known


@pytest.mark.parametrize(("ratios", "status"), [((1.0, 1.0), 1), ((1.0, 4.9), 0), ((4.9,), 0)])
def test_a_fall_has_to_be_seen_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ratios: tuple[float, ...], status: int
) -> None:
    monkeypatch.setattr(guard, "RESULTS", tmp_path)
    monkeypatch.setattr(guard, "GUARDED", [("c128", 0.9)])
    monkeypatch.setattr(guard, "committed_rows", lambda *_: [vars(ratio(5.0))])
    monkeypatch.setattr(guard.lth_sparse, "backends", lambda: {"cpp": ""})
    monkeypatch.setattr(guard, "instruction_set", lambda: "avx512")
    monkeypatch.setattr(guard.allocator, "keep_freed_memory", lambda: None)
    measured = iter(ratios)
    monkeypatch.setattr(guard, "_measured", lambda *_: ratio(next(measured)))
    monkeypatch.setattr(guard, "_fused", lambda *_: ratio(2.0, case="c64: BatchNorm + ReLU, forward"))
    assert guard.main() == status
    assert next(measured, None) is None


def test_an_unknown_machine_is_only_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "RESULTS", tmp_path)
    monkeypatch.setattr(guard, "GUARDED", [("c128", 0.9)])
    monkeypatch.setattr(guard.lth_sparse, "backends", lambda: {"cpp": ""})
    monkeypatch.setattr(guard, "instruction_set", lambda: "avx512")
    monkeypatch.setattr(guard.allocator, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(guard, "_measured", lambda *_: ratio(0.1))
    assert guard.main() == 0
    assert "reported only" in capsys.readouterr().out


@pytest.mark.parametrize(("took", "status"), [(1.3, 0), (1.5, 1)])
def test_a_tiny_layer_may_take_a_quarter_longer_than_it_must(
    took: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[float] = []

    def measure(name: str, layer: Any, way: str, seconds: float) -> dict[str, list[float]]:
        measured.append(seconds)
        slow = took if (name, way) == ("linear", "inference") else 0.5
        return {"nn": [1.0, 2.0], "cpp": [slow, 9.0], "auto": [0.5]}

    monkeypatch.setattr(guard.autograd_library, "UNUSABLE", "")
    monkeypatch.setattr(tiny_layers, "measure", measure)
    assert guard._calls_cost_too_much() == bool(status)
    assert capsys.readouterr().out.count("ABOVE") == status
    # It is slow twice, or it was a hiccup.
    assert len(measured) == 6 + status
