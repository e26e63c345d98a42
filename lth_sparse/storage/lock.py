"""A directory that one process holds at a time: what is under `--out` is written by one command."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lth_sparse.storage.files import make_directory
from lth_sparse.system.errors import InputError
from lth_sparse.system.stopping import Stopped


class InUse(InputError):
    """Another process writes there, or has begun a run there since it was looked at."""


LOCK = ".lock"
"""The file that the process which writes a directory holds locked."""


@contextmanager
def locked(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds `directory`, made if need be, for this process alone; removes it again if it stays empty.

    Who is stopped inside is told where he can go on: of directories inside each other, in the outermost. Raises
    InputError when it cannot be made, InUse when another process holds it. `say`: told where nothing can be locked.
    """
    handle = _lock(directory, say)
    try:
        yield
    except Stopped as stopped:
        stopped.out = directory
        raise
    finally:
        (directory / LOCK).unlink(missing_ok=True)
        if not any(directory.iterdir()):
            directory.rmdir()
        os.close(handle)


def _lock(directory: Path, say: Callable[[str], None]) -> int:
    """The lock's file, open: closing it, or the end of the process, frees the directory."""
    try:
        make_directory(directory)
        handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"--out {directory} cannot be made: {error.strerror}") from error
    try:
        # Of a file that is open for writing: so it is a lock on NFS, too.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before has removed the file that was opened here, perhaps.
        mine = os.path.exists(directory / LOCK) and os.path.samestat(os.fstat(handle), os.stat(directory / LOCK))
    except BlockingIOError:
        mine = False
    except OSError as error:
        say(f"{directory} cannot be locked ({error.strerror}): see that no other process writes there")
        mine = True
    if not mine:
        os.close(handle)
        raise InUse(f"--out {directory}: another process is writing there; wait for it")
    return handle
