"""The whole-lottery benchmark: what it plays is the lottery, what it says can be worked out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.lottery import __main__ as command
from bench.lottery.kernels import kernels_of
from bench.lottery.played import with_fewer
from bench.page import blocks, build, kernels, lotteries, sources
from bench.page.charts import svg
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.storage.record import STEP, Chosen
from tests.conftest import rows

TINY = ("--dataset", "digits", "--iterations", "8", "--rounds", "2", "--prune-rate", "0.7", "--rehearse")


def played(folder: Path, *options: str) -> dict[str, Any]:
    assert command.main([*TINY, *options, "--results", str(folder)]) == 0
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In the memory format that the command line takes for a training as short: measured, another one could win."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.lottery.played.ALWAYS", 1000)
        return played(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def worked_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return played(tmp_path_factory.mktemp("extrapolated"), "--extrapolate", "--iterations", "1000")


def test_both_sides_are_the_lottery_of_the_command_line(
    real: dict[str, Any], lottery: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, error = lottery(
        *TINY[:-1], "--scope", "global", "--controls", "none", "--backend", "dense", "--out", tmp_path / "run"
    )
    assert status == 0, error
    expected = rows(tmp_path / "run")
    assert [str(row["density"]) for row in real["rounds"]] == [row["density"] for row in expected]
    found = [str(row["sides"]["dense"]["accuracy"]) for row in real["rounds"]]
    assert found == [row["accuracy_retrained"] for row in expected]


def test_every_round_has_its_seconds_and_its_bytes(real: dict[str, Any]) -> None:
    assert [row["round"] for row in real["rounds"]] == [0, 1, 2]
    for row in real["rounds"]:
        for side in row["sides"].values():
            assert 0 < side["training_seconds"] < side["wall_seconds"]
    dense = [row["sides"]["dense"]["held_bytes"] for row in real["rounds"]]
    assert len(set(dense)) == 1
    weights = real["network"]["weights"]
    # Adam: four numbers for a parameter, and a byte of mask for a weight; biases and step counts are the rest.
    assert 17 * weights < dense[0] < 18 * weights
    for row in real["rounds"]:
        if row["trained_by"] == "dense":
            assert row["sides"]["auto"]["held_bytes"] == row["sides"]["dense"]["held_bytes"]


def test_extrapolated_seconds_are_steps_by_their_time(worked_out: dict[str, Any]) -> None:
    assert "measured steps" in worked_out["extrapolated"]
    for row in worked_out["rounds"]:
        assert row["iterations"] == 1000
        assert row["sides"]["auto"]["training_seconds"] == pytest.approx(row["step_ms"])
        assert row["sides"]["dense"]["training_seconds"] == pytest.approx(row["dense_step_ms"])
        assert "accuracy" not in row["sides"]["auto"]


def test_every_round_has_its_kernels_and_its_memory_formats(real: dict[str, Any], worked_out: dict[str, Any]) -> None:
    for row in (*real["rounds"], *worked_out["rounds"]):
        assert set(row["memory_formats"]) == {"dense", "auto"}
        assert set(row["memory_formats"].values()) <= {"contiguous", "channels_last"}
        assert sum(row["kernels"].values()) > 0
        if row["trained_by"] == "dense":
            assert set(row["kernels"]) == {"dense"}
            assert row["memory_formats"]["auto"] == row["memory_formats"]["dense"]
    formats = {row["memory_formats"]["dense"] for row in worked_out["rounds"]}
    assert len(formats) == 1, "dense's format does not depend on the masks, and is measured once"


def chosen(round: int, operation: str, backend: str, **milliseconds: float) -> Chosen:
    named = {name.replace("_", "/"): value for name, value in milliseconds.items()}
    return Chosen(round, "" if operation == STEP else "conv1a", 0.5, operation, backend, named, "")


def test_kernels_are_weighed_by_the_times_of_what_they_computed() -> None:
    rows = [
        chosen(1, "forward", "cpp/winograd", cpp_winograd=2.0, dense=9.0),
        chosen(1, "grad_input", "cpp/sparse", cpp_sparse=3.0, dense=9.0),
        chosen(1, "grad_weight", "cpp/winograd", cpp_winograd=4.0, dense=9.0),
        chosen(1, STEP, "auto", auto=20.0, dense=40.0),
        chosen(2, "forward", "cpp/sparse", cpp_sparse=1.0, dense=2.0),
        chosen(2, STEP, "dense", auto=20.0, dense=10.0),
    ]
    assert kernels_of(rows, 1) == {"cpp/winograd": 6.0, "cpp/sparse": 3.0}
    assert kernels_of(rows, 2) == {"dense": 2.0}, "dense trained it, whatever the layers would have taken"
    assert kernels_of(rows, 0) == {}
    assert kernels.in_words(kernels_of(rows, 1)) == "cpp/winograd 67 %, cpp/sparse 33 %"
    assert kernels.in_words({}) == ""


def test_the_chart_stacks_the_shares_of_whatever_names_there_are() -> None:
    made = [{"cpp/winograd": 3.0, "dense": 1.0}, {"cpp/sparse": 2.0, "cpp/winograd": 2.0}, {"dense": 5.0}]
    found = {"rounds": [{"round": number, "iterations": 10, "kernels": each} for number, each in enumerate(made)]}
    chart = kernels.chart("lottery-x-kernels", "x", found)
    assert chart is not None
    assert {line.label: line.y for line in chart.lines} == {
        "dense": (25.0, 0.0, 100.0), "cpp/winograd": (75.0, 50.0, 0.0), "cpp/sparse": (0.0, 50.0, 0.0),
    }  # fmt: skip
    drawn = svg(chart).decode()
    assert chart.digest in drawn
    assert all(f">{name}<" in drawn for name in ("dense", "cpp/winograd", "cpp/sparse"))
    assert kernels.of_all_rounds(found) == {"cpp/winograd": 50.0, "dense": 60.0, "cpp/sparse": 20.0}
    assert kernels.chart("x", "x", {"rounds": [{"round": 0}]}) is None, "files of version 0.1.0 have none"


def test_what_sparsity_itself_gives_is_over_as_many_steps_of_round_0() -> None:
    steps = [(100, 8.0), (50, 4.0), (50, 2.0)]
    found = {"rounds": [{"iterations": count, "step_ms": milliseconds} for count, milliseconds in steps]}
    assert lotteries.by_sparsity(found) == pytest.approx(200 * 8 / (800 + 200 + 100))


def test_the_page_and_the_documents_take_the_totals_from_the_rounds(
    real: dict[str, Any], worked_out: dict[str, Any]
) -> None:
    measured = sources.read()
    measured.lotteries.clear()
    assert lotteries.NOT_YET in build.text(build.sections(measured))
    for row in real["rounds"]:
        row["sides"]["dense"] |= {"wall_seconds": 1200.0, "training_seconds": 1000.0}
        row["sides"]["auto"] |= {"wall_seconds": 800.0, "training_seconds": 400.0}
    measured.lotteries.update({"lottery-a.json": real, "lottery-b.json": worked_out})
    page = build.text(build.sections(measured))
    summary = "\n".join(blocks.BLOCKS["lottery"](measured))
    assert lotteries.NOT_YET not in page
    for text in (page, summary):
        assert "| 1 h 0 min | 40 min 0 s | 1.50 | 2.50 |" in text
        assert "| over `auto` with nothing pruned | layers computed by |" in text
        assert kernels.in_words(kernels.of_all_rounds(worked_out)) in text
    assert "**Extrapolated** from 5 to 30 measured steps" in page
    names = {chart.name for chart in build.charts(build.sections(measured))}
    assert {"lottery-a-steps", "lottery-a-memory", "lottery-a-kernels", "lottery-b-steps", "lottery-b-kernels"} <= names
    real["rounds"][1]["sides"]["auto"]["wall_seconds"] = 2400.0
    assert "Losing: rounds that took longer under `auto`: round 1: 0.500" in build.text(build.sections(measured))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backend", "cpp"), "--backend"),
        (("--schedule", "one-shot"), "--schedule"),
        (("--test-images", "0"), "--test-images 0"),
        (("--model", "none"), "none"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_bad_input_is_told_in_a_line(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command.main([*TINY, *options, "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_fewer_images_are_taken_evenly(tiny_data: Dataset) -> None:
    labels = torch.arange(10).repeat_interleave(6)
    images = torch.zeros(60, 1, 8, 8, dtype=torch.uint8)
    fewer = with_fewer(Dataset("sorted", "", tiny_data.classes, tiny_data.train, Split(images, labels),
                               Split(images, labels), tiny_data.mean, tiny_data.deviation), 20)  # fmt: skip
    assert fewer.test.labels.bincount().tolist() == [2] * 10
    assert len(fewer.validation) == 20
    assert len(fewer.train) == len(tiny_data.train)
