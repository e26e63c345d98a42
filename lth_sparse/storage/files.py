"""Files that are whole or not there: written beside their place, flushed, then renamed into it."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Puts `content` at `path` so that a reader, a crash or a full disk never sees a part of it.

    Raises OSError (a full disk, no permission) with nothing left behind and the earlier file, if any, untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: of two who write at once, the last one's content is there in the end, whole.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_entries(path: Path, about: Mapping[str, Any], lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A JSON object of `about` and of `lists`, one entry of them a line, so that two files can be compared by eye."""
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
    for name, entries in lists.items():
        lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
        fields.append(f"{json.dumps(name)}: [\n{lines}\n]")
    write_atomically(path, ("{\n" + ",\n".join(fields) + "\n}\n").encode())


def slug(words: str) -> str:
    """In small letters and digits, joined by hyphens: part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
