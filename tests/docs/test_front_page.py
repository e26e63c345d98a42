"""README.md stays a front page: short, and what it offers stands on its first screen."""

from __future__ import annotations

import re
from pathlib import Path

LINES = (Path(__file__).resolve().parents[2] / "README.md").read_text().splitlines()
FIRST_SCREEN = "\n".join(LINES[:40])


def test_it_is_short() -> None:
    assert len(LINES) <= 150
    blocks = re.findall(r"^```\w+\n(.*?)^```$", "\n".join(LINES), re.DOTALL | re.MULTILINE)
    assert max(block.count("\n") for block in blocks) <= 8


def test_the_first_screen_has_the_picture_a_number_and_the_install_line() -> None:
    assert '<img src="docs/results/plots/' in FIRST_SCREEN
    assert re.search(r"^- \*\*\d", FIRST_SCREEN, re.MULTILINE)
    assert re.search(r"^pip install ", FIRST_SCREEN, re.MULTILINE)
