"""A disk whose power is cut: what is left of what a process did, where a file system keeps no more than POSIX promises.

The content of a file is on the disk once it was flushed. What was made, renamed or removed in a directory is there once
that directory was flushed; before, each of these may be on the disk or not, and a later one without an earlier one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Event:
    """What happened to `path`, absolute: "content" flushed, "sync" of a directory, "mkdir", "rename" to `target`,
    "unlink", "rmdir"; or something that the test marked, by another name."""

    kind: str
    path: str
    target: str = ""
    content: bytes = b""


@dataclass
class Disk:
    """The events of a process, in order."""

    events: list[Event] = field(default_factory=list)

    def mark(self, name: str, what: str = "") -> None:
        """Something has returned, whose effects have to be there from now on."""
        self.events.append(Event(name, what))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Inside, what this process does to files by `os` is written down."""
        fsync = os.fsync

        def at(path: Any, directory: int | None) -> str:
            above = "" if directory is None else os.readlink(f"/proc/self/fd/{directory}")
            return os.path.abspath(os.path.join(above, os.fspath(path)))

        def recording_fsync(descriptor: Any) -> None:
            fsync(descriptor)
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            if os.path.isdir(path):
                self.events.append(Event("sync", path))
            else:
                self.events.append(Event("content", path, content=Path(path).read_bytes()))

        def recording(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def record(path: Any, *others: Any, dir_fd: int | None = None, **named: Any) -> Any:
                place = at(path, dir_fd)
                found = call(path, *others, **named, **({} if dir_fd is None else {"dir_fd": dir_fd}))
                target = os.path.abspath(os.fspath(others[0])) if kind == "rename" else ""
                self.events.append(Event(kind, place, target))
                return found

            return record

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", recording_fsync)
            for name, kind in {
                "replace": "rename", "rename": "rename", "unlink": "unlink", "mkdir": "mkdir", "rmdir": "rmdir",
            }.items():  # fmt: skip
                patch.setattr(os, name, recording(kind, getattr(os, name)))
            yield

    def cut(self, before: int, root: Path, target: Path, survives: Callable[[], bool]) -> None:
        """Makes at `target` what is on the disk under `root` where the power is cut before that event. `survives`: of
        each change of a directory that was not flushed, whether it is there."""
        happened = self.events[:before]
        last_sync = {event.path: number for number, event in enumerate(happened) if event.kind == "sync"}
        contents: dict[str, bytes] = {}
        files: dict[str, bytes] = {}
        directories = {str(root.parent)}
        for number, event in enumerate(happened):
            if event.kind == "content":
                contents[event.path] = event.content
                continue
            parent = os.path.dirname(event.path)
            durable = last_sync.get(parent, -1) > number or survives()
            if event.kind not in ("mkdir", "rename", "unlink", "rmdir") or not durable or parent not in directories:
                continue
            if event.kind == "mkdir":
                directories.add(event.path)
            elif event.kind == "rename":
                # Whose content was not flushed is there by name, and empty. Of a file under its own name before.
                files[event.target] = files.pop(event.path, contents.get(event.path, b""))
            elif event.kind == "unlink":
                files.pop(event.path, None)
            else:
                directories.discard(event.path)
                files = {name: held for name, held in files.items() if not name.startswith(f"{event.path}/")}
        for name in sorted(directories - {str(root.parent)}):
            if Path(name).is_relative_to(root):
                (target / Path(name).relative_to(root)).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if Path(name).is_relative_to(root) and os.path.dirname(name) in directories:
                (target / Path(name).relative_to(root)).write_bytes(content)


def all_or_nothing(random: random.Random) -> list[Callable[[], bool]]:
    """What becomes of changes that were not flushed: none is there, all are, or as chance wills."""
    return [lambda: False, lambda: True, lambda: random.random() < 0.5]
