"""The nearest known name to one that is not known, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ', did you mean "x"?' for the known name nearest to `name`, or '' when none is near."""
    matches = get_close_matches(name, list(known), n=1)
    return f', did you mean "{matches[0]}"?' if matches else ""
