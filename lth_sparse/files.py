"""Files that are whole or not there: written beside their place, flushed, then renamed into it."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Puts `content` at `path` so that a reader, a crash or a full disk never sees a part of it.

    Raises OSError (a full disk, no permission) with nothing left behind and the earlier file, if any, untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
