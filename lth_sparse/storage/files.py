"""Files that are whole or not there, after a power cut too: written beside their place, flushed, then renamed into it.

A rename alone is in memory until the file system writes its directory down, and may come to the disk after what was
done later, such as the removal of an older file. So the directory is flushed too, and what follows can rely on it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, and on the disk, so that a reader, a crash or a full disk never sees a part of it.

    Raises OSError (a full disk, no permission), which names `path`, with nothing left behind and the earlier file, if
    any, untouched.
    """
    try:
        make_directory(path.parent)
        _write(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _write(path: Path, content: bytes) -> None:
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
    flush_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Makes `directory` and what is missing above it, each on the disk before what will lie in it. Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    flush_directory(directory.parent)


def flush_directory(directory: Path) -> None:
    """Waits until what was made, renamed and removed in `directory` is on the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


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
