"""Two folders, file by file: equal, equal but for times, or where they first differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.unchanged.times import masked

BEFORE, AFTER = 40, 120
"""Characters of a line that are shown before and after the first difference."""


@dataclass(frozen=True)
class Verdict:
    """On one file. `difference` says where the first one is and both values; "" when there is none.

    `times`: the bytes differ, but only in times.
    """

    difference: str = ""
    times: bool = False

    def __str__(self) -> str:
        return "DIFFERS" if self.difference else "times" if self.times else "equal"


def compare(base: Path, new: Path, left_out: Collection[str] = (), times: bool = True) -> dict[str, Verdict]:
    """A verdict on every file or empty folder of `run/` and `said/` in either folder, by its relative path.

    `left_out` is not looked at. Without `times`, none may differ.
    """
    names = [name for name in sorted(_files(base) | _files(new), key=_order) if name not in left_out]
    return {name: _verdict(base, new, name, times) for name in names}


def _files(folder: Path) -> set[str]:
    found = [path for part in ("run", "said") for path in (folder / part).rglob("*")]
    return {path.relative_to(folder).as_posix() for path in found if path.is_file() or not any(path.iterdir())}


def _order(name: str) -> tuple[bool, str]:
    """What was said comes first: where a run failed, that is the reason for all the rest."""
    return not name.startswith("said/"), name


def _verdict(base: Path, new: Path, name: str, times: bool) -> Verdict:
    for folder, what in ((base, "missing in the base's"), (new, "missing in the new")):
        if not (folder / name).exists():
            return Verdict(f"it is {what} files")
    if (base / name).is_dir() or (new / name).is_dir():
        return Verdict() if (base / name).is_dir() and (new / name).is_dir() else Verdict("one of them is a folder")
    raw = [(folder / name).read_bytes() for folder in (base, new)]
    if raw[0] == raw[1]:
        return Verdict()
    if times:
        raw = [masked(folder, name) for folder in (base, new)]
        if raw[0] == raw[1]:
            return Verdict(times=True)
    return Verdict(_first_difference(*raw))


def _first_difference(base: bytes, new: bytes) -> str:
    try:
        base_text, new_text = base.decode(), new.decode()
        binary = "\0" in base_text + new_text
    except UnicodeDecodeError:
        binary = True
    if binary:
        at = _common(base, new)
        return f"byte {at}: base {base[at : at + 8].hex(' ') or 'ends'}, new {new[at : at + 8].hex(' ') or 'ends'}"
    at = _common(base_text, new_text)
    line = base_text.count("\n", 0, at) + 1
    shown = []
    for text in (base_text, new_text):
        begin = max(text.rfind("\n", 0, at) + 1, at - BEFORE)
        end = text.find("\n", at)
        shown.append(text[begin : min(len(text) if end < 0 else end, at + AFTER)])
    return f"line {line}: base {shown[0]!r}, new {shown[1]!r}"


def _common(one: bytes | str, other: bytes | str) -> int:
    """How many bytes or characters the two begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
