"""Paths and commands as they are recorded: the home directory is ~, so that they name no machine and still work."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def from_home(path: str) -> str:
    """`path`, with ~ in the place of the home directory if it is in it."""
    home = os.path.expanduser("~").rstrip("/")
    inside = home.startswith("/") and (path == home or path.startswith(home + "/"))
    return "~" + path.removeprefix(home) if inside else path


def command(program: str, arguments: Iterable[str]) -> str:
    """The command line as a shell takes it: `program`, then `arguments`, quoted where they have to be."""
    return " ".join([program, *map(_word, arguments)])


def _word(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals and from_home(value) != value:
        return f"{option} {_word(value)}"  # A shell leaves a ~ behind an equals sign alone.
    short = from_home(argument)
    if short == argument:
        return shlex.quote(argument)
    return "~/" + shlex.quote(short[2:]) if short[2:] else short
