"""Files read whole, and nothing else: a named pipe or a device of that name would be waited for, or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bytes(path: Path) -> bytes:
    """What the file at `path` holds. Raises OSError when it cannot be read, or is no regular file."""
    # A pipe that nobody writes to would keep open itself waiting.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read()


def read_text(path: Path) -> str:
    """The same, as UTF-8. Raises UnicodeDecodeError, a ValueError, in addition."""
    return read_bytes(path).decode()
