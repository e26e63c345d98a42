"""The C++ kernels under ThreadSanitizer, by `make sanitize-threads`: races/races.cpp, which it builds."""

from __future__ import annotations

import os
import subprocess

import pytest

RACES = os.environ.get("LTH_SPARSE_RACES", "")

pytestmark = pytest.mark.skipif(not RACES, reason="this is no run of make sanitize-threads")

FOUND = 66
"""The exit status of a program in which ThreadSanitizer has found something."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RACES, *arguments], capture_output=True, text=True, env=os.environ | environment)


def test_a_planted_race_is_found() -> None:
    done = run("2", "planted")
    assert done.returncode == FOUND, done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert "planted" in done.stderr


@pytest.mark.parametrize("threads", ["2", "3", "5"])
@pytest.mark.parametrize("instruction_set", ["avx512", "avx2", "portable"])
def test_there_is_none(instruction_set: str, threads: str) -> None:
    done = run(threads, LTH_SPARSE_CPU=instruction_set)
    if f"LTH_SPARSE_CPU={instruction_set}: this processor does not run it" in done.stderr:
        pytest.skip(f"this processor does not run {instruction_set}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(instruction_set)
