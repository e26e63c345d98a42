"""Lines for the person who watches."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """A line on standard error, so that standard output stays with the results."""
    print(text, file=sys.stderr, flush=True)
