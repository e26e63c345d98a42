"""The table of `docs/in-your-own-program.md`: each row says in which file it is tested."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "in-your-own-program.md"

ROWS = [
    line
    for line in PAGE.read_text().split("## What works, what is refused")[1].splitlines()
    if line.startswith("|") and not re.match(r"\| what a program does|\|---", line)
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_its_tests(row):
    tested = row.rstrip("| ").rpartition("|")[2]
    names = re.findall(r"`([\w/]+\.py)`", tested)
    assert names
    for name in names:
        path = ROOT / name if "/" in name else ROOT / "tests" / "in_the_wild" / name
        assert path.is_file()
