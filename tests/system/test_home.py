"""What is recorded of a command names no machine, and is the same command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lth_sparse.system.home import command, from_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    return tmp_path / "someone"


def test_the_home_directory_is_a_tilde(home: Path) -> None:
    assert from_home(f"{home}/.cache/images") == "~/.cache/images"
    assert from_home(str(home)) == "~"
    for other in (f"{home}-else/images", "runs/a", "/data/images", f"data{home}/images"):
        assert from_home(other) == other


def test_where_there_is_no_home_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert from_home("/data/images") == "/data/images"


def test_a_recorded_command_is_the_same_command(home: Path) -> None:
    arguments = [f"{home}/a", f"{home}/a b/$c", str(home), f"--out={home}/it's", "--seed=1", "it's", "~", ""]
    recorded = command("python3 -m x", arguments)
    assert str(home) not in recorded
    said = subprocess.run(
        ["bash", "-c", recorded.replace("python3 -m x", "printf '%s\\n'")],
        env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.splitlines() == [*arguments[:3], "--out", f"{home}/it's", *arguments[4:]]
