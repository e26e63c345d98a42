"""Benchmarks compare: each prints the ratio of two sides timed in turn, in one process, on the same inputs."""

from __future__ import annotations

import platform

import pytest
import torch

from lth_sparse import __version__, environment

RESULTS: list[str] = []


@pytest.fixture
def result() -> list[str]:
    """Lines to be printed when every benchmark has run."""
    return RESULTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the ratios, with what they were measured on."""
    if not RESULTS:
        return
    here = environment.describe(torch.device("cpu"), __version__)
    terminalreporter.section("ratios")
    terminalreporter.line(
        f"{here['processor']}, {here['threads']} threads, torch {here['torch']}, Python {platform.python_version()}, "
        f"commit {here['commit'] or 'unknown'}"
    )
    for line in RESULTS:
        terminalreporter.line(line)
