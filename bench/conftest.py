"""Benchmarks compare: each prints the ratio of sides timed in turn, in one process, on the same inputs.

The allocator is set up as the command line sets it up, so that no side pays for page faults.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import lth_sparse
from bench.suite import results_file, tables
from bench.suite.run import Suite
from lth_sparse.backends import extension
from lth_sparse.storage import environment
from lth_sparse.system import allocator, home

OPTIONAL = ("full", "peers", "inference_peers")
"""Markers of what runs only when it is asked for: by -m, or by --full."""
SUITE = pytest.StashKey[Suite]()


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    """What is found is added to it, to be printed and written when every benchmark has run."""
    return pytestconfig.stash[SUITE]


@pytest.fixture
def cpp() -> None:
    """Skips where the C++ kernels cannot be used, and says why."""
    if reason := lth_sparse.backends()["cpp"]:
        pytest.skip(f"cpp backend: {reason}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--full: what. --results: where to."""
    parser.addoption("--full", action="store_true", help="time the full table, not only its core")
    parser.addoption(
        "--results",
        type=Path,
        metavar="DIR",
        help="write the ratios to DIR/cpu-MACHINE.json and, of peers, to DIR/peers-MACHINE.json and "
        "DIR/engines-MACHINE.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is allocated. Our tables take the place of pytest-benchmark's, which have fewer columns."""
    allocator.keep_freed_memory()
    if not config.getoption("benchmark_compare"):
        config.option.benchmark_quiet = True  # --benchmark-verbose prints its tables all the same.


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is optional and was not asked for."""
    asked = {"full"} if config.getoption("--full") else set()
    asked |= set(re.findall(r"\w+", config.getoption("markexpr")))
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in OPTIONAL if name not in asked)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is left is what will run."""
    session.config.stash[SUITE] = Suite(session.items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints every operation, then the ratios with what they were measured on, the losing rows and the missed musts."""
    suite = config.stash.get(SUITE, None)
    if suite is None:
        return
    here = _measured_on()
    lines: list[str] = []
    entries: dict[str, dict[str, Any]] = {}
    if suite.found.sides or suite.found.operations or suite.lines:
        lines += _found(suite)
        entries["cpu"] = results_file.entries_of(suite.found)
    if suite.peers:
        lines += ["", *tables.peers(suite.peers)]
        entries["peers"] = {"rows": suite.peers}
    if suite.engines:
        lines += ["", *tables.engines(suite.engines)]
        entries["engines"] = {"rows": suite.engines}
    if not lines:
        return
    if directory := config.getoption("--results"):
        command = home.command("python -m pytest", map(str, config.invocation_params.args))
        for kind, found in entries.items():
            ceilings = suite.measured.get("cpu") if kind == "cpu" else None
            lines += ["", f"written to {results_file.write(kind, directory, here, command, found, ceilings)}"]
    terminalreporter.section("dense PyTorch in its better layout, and every backend")
    for line in [", ".join(f"{name} {value}" for name, value in here.items()), *lines]:
        terminalreporter.line(line)


def _found(suite: Suite) -> list[str]:
    """Of the layers and networks."""
    rows = suite.found.rows
    lines = [*tables.ceilings(suite.measured), *tables.operations(suite.found.operations), "", *suite.lines]
    lines += ["", *tables.rows(rows)]
    for title, chosen in (
        ("losing: slower than dense PyTorch, or larger", [row for row in rows if row.ratio < 1]),
        ("missed musts", [row for row in rows if row.verdict == "MISSED"]),
    ):
        lines += ["", f"{title}: {len(chosen)} of {len(rows)} rows", *tables.rows(chosen)[1:]]
    return lines


def _measured_on() -> dict[str, Any]:
    here = environment.describe(torch.device("cpu"), lth_sparse.__version__)
    if not lth_sparse.backends()["cpp"]:
        here["instruction_set"] = torch.ops.lth_sparse_cpu.instruction_set()
        here["compiler"] = extension.compiler("_cpu")
    return here
