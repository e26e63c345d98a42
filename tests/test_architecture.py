"""docs/architecture.md names what is there, and every room that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
NAMED = sorted(set(re.findall(r"(?<![\w/.])((?:[\w]+/)+[\w]*(?:\.\w+)?|\w+\.py)(?![\w/.])", TEXT)))


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_is_there(name: str) -> None:
    made = ("tickets/", "paper/conv4")  # what a run leaves; a preset
    in_a_room = [path for path in (ROOT / "lth_sparse").glob(f"*/{name}") if name.endswith(".py")]
    assert name.startswith(made) or (ROOT / name).exists() or (ROOT / "lth_sparse" / name).exists() or in_a_room


def test_it_names_every_room_and_every_loose_file() -> None:
    rooms = [path for path in (ROOT / "lth_sparse").iterdir() if (path / "__init__.py").exists()]
    files = [path for path in (ROOT / "lth_sparse").glob("*.py") if path.name != "__init__.py"]
    missing = [path.name for path in (*rooms, *files) if f"`{path.name}{'/' * path.is_dir()}`" not in TEXT]
    assert not missing, missing


def test_nothing_but_commands_and_the_face_stands_loose() -> None:
    loose = {path.name for path in (ROOT / "lth_sparse").glob("*.py")}
    assert loose == {
        "__init__.py",
        "__main__.py",
        "run.py",
        "sweep.py",
        "reproduce.py",
        "transfer.py",
        "verify.py",
        "infer.py",
        "doctor.py",
        "ops.py",
        "reference.py",
    }
