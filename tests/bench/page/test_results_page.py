"""The results page and the figures of the documents are what the committed measurements give, and nothing else."""

from __future__ import annotations

import copy
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lth_sparse
from bench.cases.gpu import REHEARSED
from bench.cases.masks import random_masks
from bench.gpu.auto import measure_auto
from bench.gpu.layers import measure_layer
from bench.gpu.results import Results
from bench.gpu.steps import measure_step
from bench.page import blocks, build, front, sources
from bench.page.badges import badges
from bench.page.charts import BREAK_EVEN, crossing, svg
from bench.page.gpu import ratios
from bench.page.losing import slower
from bench.page.sources import PAGE, ROOT, Sources
from lth_sparse.storage import environment, record
from lth_sparse.storage.summary import Judged, StabilityRow

AGAIN = "run `make results` and commit what it writes"


@pytest.fixture
def measured() -> Sources:
    """What is committed, read anew: a test may change it."""
    return sources.read()


def page(measured: Sources) -> str:
    return build.text(build.sections(measured))


def test_the_page_is_what_the_files_give(measured: Sources) -> None:
    assert (ROOT / build.PAGE_TEXT).read_text() == page(measured), AGAIN


def figures(measured: Sources) -> str:
    """All documents that have figures of it, one after the other."""
    return "\n".join(build.documents(measured).values())


def test_the_figures_of_the_documents_are_what_the_files_give(measured: Sources) -> None:
    made = build.documents(measured)
    assert Path("README.md") in made
    for path, text in made.items():
        assert (ROOT / path).read_text() == text, f"{path}: {AGAIN}"


def test_every_chart_is_there_and_drawn_from_these_figures(measured: Sources) -> None:
    """Not compared byte by byte: another version of matplotlib draws other bytes. The digest is that of the points."""
    charts = {PAGE / chart.file: chart.digest for chart in build.charts(build.sections(measured))}
    found = {path.relative_to(ROOT) for path in (ROOT / PAGE / "plots").iterdir()}
    assert found == charts.keys() | badges().keys(), AGAIN
    for path, digest in charts.items():
        assert digest in (ROOT / path).read_text(), f"{path} shows other figures: {AGAIN}"


def test_badges_say_what_the_project_says(tmp_path: Path) -> None:
    for path, text in badges().items():
        assert (ROOT / path).read_text() == text, AGAIN
    for name in ("pyproject.toml", "requirements.txt", "csrc/cpu/dispatch.cpp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace(">=3.10", ">=3.12"))
    assert {path.stem for path, text in badges(tmp_path).items() if text != badges()[path]} == {"badge-python"}
    (tmp_path / "requirements.txt").write_text("numpy\n")
    with pytest.raises(ValueError, match="torch"):
        badges(tmp_path)


def test_a_claim_and_an_instability_are_on_the_page(tmp_path: Path) -> None:
    for kept in (ROOT / PAGE, ROOT / "bench" / "results"):
        shutil.copytree(kept, tmp_path / kept.relative_to(ROOT))
    experiment = tmp_path / PAGE / "conv2-cifar10-jpeg-16"
    pairs = [StabilityRow(0, 5, 3, 1.0, 0.125, 0.01, "unstable"), StabilityRow(2, 0, 3, 0.25, 0.001, 0.002, "stable")]
    (experiment / "instability-summary.csv").write_text(record.table(pairs))
    folder = tmp_path / PAGE / "claims" / "pai-vgg16"
    shutil.rmtree(folder)
    (folder / "synflow").mkdir(parents=True)
    judged = Judged("pai-vgg16", "it learns", "86.81 %", "small", 3, 0.0032, "%", 0.5, 0.02, "holds")
    (folder / "scorecard.csv").write_text(record.table([judged]))
    (folder / "about.md").write_text("What was seen.\n")
    times = {"trainings": 6, "seconds": 30.0, "dense_seconds": 60.0, "changing_seconds": 10.0,
             "repacking_seconds": 0.1, "dense_gradient_seconds": 0.4}  # fmt: skip
    info = json.loads((experiment / "replicates.json").read_text()) | {"training": times}
    (folder / "synflow" / "replicates.json").write_text(json.dumps(info))
    shown = page(sources.read(tmp_path))
    assert "| dense network | 5 | 12.5 ± 1.0 | unstable |" in shown
    assert "| ticket, 25 % left | 0 | 0.1 ± 0.2 | stable |" in shown
    assert "| it learns | 86.81 % | 50 ± 2 % | 3 | 0.3 % | holds |" in shown
    assert (
        "- synflow: The steps of all 6 trainings took 30 s; by masked dense PyTorch's they take 1 min 0 s, 2.00"
        in shown
    )
    assert "changes of their topology took 1.0%, and the dense gradients for them 4.0%" in shown
    assert "What was seen." in shown


def test_every_picture_and_file_that_the_page_names_exists(measured: Sources) -> None:
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page(measured))
    assert named
    assert all((ROOT / PAGE / name).is_file() for name in named)
    for name in [*measured.cpu, *measured.engines, *measured.gpu, *measured.lotteries]:
        assert f"`bench/results/{name}`" in page(measured)


def test_every_block_that_can_be_made_stands_in_one_document(measured: Sources) -> None:
    found = [name for text in build.documents(measured).values() for name in blocks.names(text)]
    assert sorted(found) == sorted(blocks.BLOCKS)


def test_a_figure_typed_into_a_document_is_seen(measured: Sources) -> None:
    """In every block: one digit of its text changed is changed back."""
    for text in build.documents(measured).values():
        for name in blocks.names(text):
            start = text.index(f"<!-- results: {name} -->")
            end = text.index("<!-- end -->", start)
            place = start + len(f"<!-- results: {name} -->\n")
            digit = re.search(r"\d", text[place:end])
            place += digit.start() if digit else 0
            doctored = f"{text[:place]}#{text[place + 1 :]}"
            assert blocks.filled(doctored, measured) == text


def test_nothing_that_a_block_says_is_said_by_hand() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        written = blocks.without_blocks(path.read_text())
        assert not re.search(r"not yet run on a gpu", written, re.IGNORECASE), path
        assert not re.search(r"\d times (faster|slower)|\d+ MiB", written), path


def test_another_time_makes_another_page_other_figures_and_another_chart(measured: Sources) -> None:
    before_page, before_figures = page(measured), figures(measured)
    before = {chart.name: chart.digest for chart in build.charts(build.sections(measured))}
    found = measured.cpu[blocks.PROCESSOR]
    row = next(row for row in found["rows"] if row["case"] == "c64" and row["sparsity"] == 0.9)
    row["by_minimum"] *= 2
    assert page(measured) != before_page
    assert figures(measured) != before_figures
    after = {chart.name: chart.digest for chart in build.charts(build.sections(measured))}
    assert [name for name in after if after[name] != before[name]] == [
        f"{blocks.PROCESSOR.removesuffix('.json')}-speedup-batch-128"
    ]


def test_the_front_page_says_that_the_gpu_loses_while_it_does(measured: Sources) -> None:
    def last() -> str:
        return front.numbers(measured, blocks.processor(measured))[-1]

    assert "so slower" in last()
    for found in measured.gpu.values():
        for step in found["steps"]:
            step["microseconds"] = {
                side: value if "dense" in side else 1.0 for side, value in step["microseconds"].items()
            }
    assert "so slower" not in last()
    measured.gpu.clear()
    assert "not yet run on a gpu" in last().lower()


def test_a_row_that_loses_is_among_the_losing_ones(measured: Sources) -> None:
    found = measured.cpu[blocks.PROCESSOR]
    assert ("c64", "cpp at 90%, contiguous") not in {losing[:2] for losing in slower(found)}
    side = next(side for side in found["sides"] if (side["case"], side["side"]) == ("c64", "cpp at 90%, contiguous"))
    side["minimum"] *= 100
    assert ("c64", "cpp at 90%, contiguous") in {losing[:2] for losing in slower(found)}


def test_equal_charts_give_equal_bytes(measured: Sources) -> None:
    chart = build.charts(build.sections(measured))[0]
    assert svg(chart) == svg(copy.deepcopy(chart))


@pytest.mark.parametrize(
    ("y", "expected"), [((2.0, 3.0, 4.0), 0.5), ((0.5, 1.5, 2.0), 0.6), ((0.1, 0.2, 0.3), None), ((0.5, 1.0, 2.0), 0.7)]
)
def test_break_even_is_where_a_line_reaches_one(y: tuple[float, ...], expected: float | None) -> None:
    assert BREAK_EVEN == 1
    assert crossing((0.5, 0.7, 0.9), y) == (None if expected is None else pytest.approx(expected))


@pytest.fixture
def precision() -> Iterator[None]:
    """Puts back what bench/gpu/ sets for the process."""
    settings: list[Any] = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]
    before = [setting.fp32_precision for setting in settings]
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


@pytest.fixture
def gpu_file(tmp_path: Path, precision: None) -> dict[str, Any]:
    """What bench/gpu/ writes, by the code that writes it, of tiny layers on the CPU kernels; named after a GPU."""
    here = environment.describe(torch.device("cpu"), lth_sparse.__version__) | {"device": "NVIDIA Test GPU"}
    about = {"measured_on": here, "date": "2026-11-26", "command": "python -m bench.gpu", "rehearsal": ""}
    results = Results(tmp_path / "gpu-nvidia-test-gpu.json", about, time.monotonic())
    results.found |= {"tests": {"cuda": "9 passed"}, "build_failed": [], "unusable": {"triton": "not wanted here"}}
    masks = random_masks(REHEARSED)
    for layer in REHEARSED:
        of_layer = {sparsity: by_name[layer.name] for sparsity, by_name in masks.items()}
        measure_layer(results, layer, "tf32", {"random": of_layer}, ["cpp"], torch.device("cpu"), {})
        measure_auto(results, layer, {0.9: of_layer[0.9]}, torch.device("cpu"))
    measure_step(results, "small", ["cpp"], torch.device("cpu"), 2)
    results.write()
    return results.found


def test_a_gpu_file_joins_the_page(measured: Sources, gpu_file: dict[str, Any], tmp_path: Path) -> None:
    measured.gpu.clear()
    for text in (page(measured), figures(measured)):
        assert "not yet run on a gpu" in text.lower()
    measured.gpu["gpu-nvidia-test-gpu.json"] = gpu_file
    for text in (page(measured), figures(measured)):
        assert "not yet run on a gpu" not in text.lower()
        assert "NVIDIA Test GPU" in text
        assert "Tests of cuda: 9 passed" in text
    best = max(ratios(gpu_file), key=lambda ratio: ratio.value)
    rows = [row for row in gpu_file["layers"] if (row["layer"], row["side"]) == (best.layer, "dense")]
    ours = [row for row in gpu_file["layers"] if row["layer"] == best.layer and row.get("sparsity") == best.sparsity]
    assert best.value == min(row["total"] for row in rows) / min(row["total"] for row in ours)
    assert f"{best.value:.2f}" in page(measured) or f"{best.value:.1f}" in page(measured)
    names = [chart.name for chart in build.charts(build.sections(measured))]
    assert "gpu-nvidia-test-gpu-cpp-tf32" in names


def test_a_gpu_has_rooflines_of_the_layers_that_are_known(measured: Sources, gpu_file: dict[str, Any]) -> None:
    for row in gpu_file["layers"]:
        row["layer"] = row["layer"].replace("tiny linear", "linear").replace("tiny", "c64")
    gpu_file["ceilings"] = {"fma_gflops": 400_000.0, "bandwidth_gbs": 3000.0}
    measured.gpu["gpu-nvidia-test-gpu.json"] = gpu_file
    charts = {chart.name: chart for chart in build.charts(build.sections(measured))}
    roof = charts["gpu-nvidia-test-gpu-cpp-tf32-roofline"]
    assert [line.label for line in roof.lines][-1] == "ceiling, measured"
    assert max(roof.lines[-1].y) == 400_000.0
    dense = next(line for line in roof.lines if line.label == "dense PyTorch")
    row = min(
        (row for row in gpu_file["layers"] if (row["layer"], row["side"]) == ("c64", "dense")),
        key=lambda row: row["total"],
    )
    products = 128 * 32 * 32 * 64 * 64 * 9
    assert dense.y == pytest.approx((3 * 2 * products / row["total"] / 1e3,))
    assert b"</svg>" in svg(roof)


def test_errors_that_were_not_measured_are_not_on_the_page(measured: Sources, gpu_file: dict[str, Any]) -> None:
    measured.gpu.clear()
    measured.gpu["gpu-nvidia-test-gpu.json"] = gpu_file | {"note": "Measured in a hurry."}
    assert "Largest error against float64 of cpp in tf32" in page(measured)
    for row in gpu_file["layers"]:
        row.pop("error", None)
    assert "Largest error against float64 of cpp in tf32" not in page(measured)
    assert "- Note: Measured in a hurry." in page(measured)


def test_a_gpu_row_that_loses_is_among_the_losing_ones(measured: Sources, gpu_file: dict[str, Any]) -> None:
    measured.gpu["gpu-nvidia-test-gpu.json"] = gpu_file | {"auto": [], "steps": []}

    def losing() -> str:
        return page(measured).split("## Losing rows")[1].split("gpu-nvidia-test-gpu")[1]

    for row in gpu_file["layers"]:
        row["total"] = 1.0 if row["side"] == "dense" else 0.5
    assert "tiny" not in losing()
    for row in gpu_file["layers"]:
        if row["layer"] == "tiny" and row.get("sparsity") == 0.5:
            row["total"] = 8.0
    assert "| tiny | tf32 | random | cpp | 50 %: 0.12 |" in losing()


def test_a_rehearsal_is_left_out(measured: Sources, gpu_file: dict[str, Any], tmp_path: Path) -> None:
    for name in ("bench/results", "docs/results"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docs/results/training-throughput.txt").write_text("")
    for name, rehearsal in (("gpu-one.json", ""), ("gpu-rehearsal.json", "interpreted")):
        results = Results(tmp_path / "bench/results" / name, gpu_file | {"rehearsal": rehearsal}, 0.0)
        results.write()
    assert list(sources.read(tmp_path).gpu) == ["gpu-one.json"]
