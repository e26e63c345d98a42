"""Benchmarks compare: each prints the ratio of sides timed in turn, in one process, on the same inputs.

The allocator is set up as the command line sets it up, so that no side pays for page faults.
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

import lth_sparse
from bench.measure import Findings, Row
from lth_sparse import allocator, environment
from lth_sparse.backends import extension

FOUND = Findings()
RESULTS: list[str] = []


@pytest.fixture
def findings() -> Findings:
    """What is found is added to it, to be printed and written when every benchmark has run."""
    return FOUND


@pytest.fixture
def result() -> list[str]:
    """Lines to be printed when every benchmark has run."""
    return RESULTS


@pytest.fixture
def cpp() -> None:
    """Skips where the C++ kernels cannot be used, and says why."""
    if reason := lth_sparse.backends()["cpp"]:
        pytest.skip(f"cpp backend: {reason}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--results: where to."""
    parser.addoption("--results", type=Path, metavar="DIR", help="write the ratios to DIR/cpu-PROCESSOR.json")


def pytest_configure() -> None:
    """Before anything is allocated."""
    allocator.keep_freed_memory()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the ratios, with what they were measured on; then the losing rows and the missed musts."""
    rows = FOUND.rows
    if not rows and not RESULTS:
        return
    here = _measured_on()
    terminalreporter.section("ratios")
    terminalreporter.line(", ".join(f"{name} {value}" for name, value in here.items()))
    for line in RESULTS:
        terminalreporter.line(line)
    if rows:
        terminalreporter.line("")
        for line in table(rows):
            terminalreporter.line(line)
    for title, chosen in (
        ("losing: slower than dense PyTorch, or larger", [row for row in rows if row.ratio < 1]),
        ("missed musts", [row for row in rows if row.verdict == "MISSED"]),
    ):
        terminalreporter.line("")
        terminalreporter.line(f"{title}: {len(chosen)} of {len(rows)} rows")
        for line in table(chosen)[1:]:
            terminalreporter.line(line)
    if directory := config.getoption("--results"):
        path = write(directory, here, "python -m pytest " + shlex.join(config.invocation_params.args), FOUND)
        terminalreporter.line("")
        terminalreporter.line(f"written to {path}")


def table(rows: list[Row]) -> list[str]:
    """A line a row, under a line of titles."""
    cells = [["case", "sparsity", "ours", "against", "min/min", "med/med", "quartiles", "must", "aim", "", "note"]]
    for row in rows:
        low, high = row.quartiles or (None, None)
        cells.append(
            [
                row.case,
                f"{row.sparsity:.0%}",
                row.ours,
                row.against,
                f"{row.by_minimum:.2f}",
                f"{row.by_median:.2f}",
                f"{low:.2f} to {high:.2f}" if low else "",
                f"{row.must:g}" if row.must else "",
                f"{row.aim:g}" if row.aim else "",
                row.verdict,
                row.note,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def write(directory: Path, here: dict[str, Any], command: str, findings: Findings) -> Path:
    """One row and one side a line, so that two files can be compared by eye; bench/results/README.md explains them."""
    directory.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", here["processor"].lower()).strip("-")
    path = directory / f"cpu-{slug}.json"
    about = {"measured_on": here, "date": datetime.now(timezone.utc).date().isoformat(), "command": command}
    rows = [vars(row) | {"verdict": row.verdict} for row in findings.rows]
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
    fields += [_a_line_each("rows", rows), _a_line_each("sides", findings.sides)]
    path.write_text("{\n" + ",\n".join(fields) + "\n}\n")
    return path


def _a_line_each(name: str, entries: list[dict[str, Any]]) -> str:
    return f'"{name}": [\n' + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n]"


def _measured_on() -> dict[str, Any]:
    here = environment.describe(torch.device("cpu"), lth_sparse.__version__)
    if not lth_sparse.backends()["cpp"]:
        here["instruction_set"] = torch.ops.lth_sparse_cpu.instruction_set()
        here["compiler"] = extension.compiler("_cpu")
    return here
