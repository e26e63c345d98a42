"""`lth`: one name for all commands, and help that can be followed."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import lth_sparse
from lth_sparse.__main__ import COMMANDS, main
from tests.conftest import error_line


def test_it_hands_the_rest_to_the_command_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--rounds", "-1"]) == 2
    assert error_line(capsys.readouterr().err).startswith("lth run: error: --rounds -1")


def test_its_console_command_is_installed() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lth"), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"lth_sparse {lth_sparse.__version__}\n")


def test_an_unknown_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verfy"]) == 2
    assert 'did you mean "verify"' in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(("given", "status"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_its_help_names_every_command(given: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == status
    text = capsys.readouterr().out
    assert all(f"lth {name}  " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_three_examples_that_the_command_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(f"lth_sparse.{name}")
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    *_, last = capsys.readouterr().out.rpartition("examples:\n")
    examples = [line.strip() for line in last.splitlines() if line.startswith("    ")]
    assert len(examples) == 3
    for example in examples:
        words = list(shlex.shlex(example, posix=True, punctuation_chars=True))
        # Up to where the shell takes over.
        options = words[2 : next((at for at, word in enumerate(words) if word in ("|", "&&", ">")), None)]
        assert words[:2] == ["lth", name]
        command.parser().parse_args(shlex.split(example)[2:] if len(options) == len(words) - 2 else options)
