"""Lines for the person who watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_silent = False


def say(text: str) -> None:
    """A line on standard error, so that standard output stays with the results."""
    if not _silent:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def silent(silent: bool) -> Iterator[None]:
    """Inside, nothing is said if `silent`: another process says it."""
    global _silent
    before, _silent = _silent, silent
    try:
        yield
    finally:
        _silent = before


def is_watched() -> bool:
    """Whether there is a terminal, on which a line may change."""
    return not _silent and sys.stderr.isatty()


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row of a table, its columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def clock(seconds: float) -> str:
    """A duration: 4:05, or 1:04:05 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
