"""Lines for the person who watches."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def say(text: str) -> None:
    """A line on standard error, so that standard output stays with the results."""
    print(text, file=sys.stderr, flush=True)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row of a table, its columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
