"""No committed file carries a path of the machine that it was made on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MACHINE_PATH = re.compile(rb"(?<![\w.~)}/-])/(?:root|home|work|tmp|Users)/[\w.-]")
"""Where homes, checkouts and scratch files are. What stands behind a name, such as bench/work/, is no such path."""


def machine_paths(root: Path, files: Iterable[str]) -> list[str]:
    """file:line of each, with what is there."""
    return [
        f"{name}:{number}: {line[max(0, found.start() - 30) : found.end() + 30].decode(errors='replace')}"
        for name in files
        for number, line in enumerate((root / name).read_bytes().splitlines(), 1)
        for found in MACHINE_PATH.finditer(line)
    ]


def test_no_committed_file_has_a_path_of_a_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so what is committed is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    assert files
    assert machine_paths(ROOT, files) == [], "write ~, DIR or a path from the root of the repository"


@pytest.mark.parametrize("folder", ["root", "home", "work", "tmp", "Users"])
def test_such_a_path_is_seen(tmp_path: Path, folder: str) -> None:
    path = "/".join(["", folder, "someone/out"])
    (tmp_path / "found.json").write_text(f'{{"date": "",\n"command": "python -m bench.gpu --out {path}"}}\n')
    (tmp_path / "report.html").write_bytes(b"\xff\x00<pre>--data-dir=&#x27;" + path.encode() + b"&#x27;</pre>")
    (tmp_path / "right.md").write_text(f"--data-dir ~{path} ; $(HOME){path}; bench{path}; https://example.org{path}\n")
    found = machine_paths(tmp_path, ["found.json", "report.html", "right.md"])
    assert [line.partition(": ")[0] for line in found] == ["found.json:2", "report.html:1"]
