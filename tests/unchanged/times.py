"""What of a run is a time, and so is masked before two runs are compared. Everything else has to be equal, byte for byte.

| file | masked | why |
|---|---|---|
| `run/rounds.csv` | columns `step_ms`, `dense_step_ms`, `seconds`: positive numbers; `speedup`, where it is the ratio of the first two | measured |
| `run/record.json` | the same entries, where they are those of `rounds.csv`; `sha256`, where it is the one of the content | the SHA-256 covers the times |
| `run/record.json` | the order within `milliseconds`, no value of it | not a time: what comes out of a state is sorted, so it tells when the run was killed |
| `run/plots/speedup.png` | all but its size and that it is a PNG | it is drawn of the times |
| `run/report.html` | that picture, where it is the one in `plots`; step times and speedups in the table of rounds and in the tile, where they are those of `rounds.csv` | it shows them |
| `run/config.json`, `run/report.html` | `commit`, where it is a commit without changes | each tree has its own |
| `said/stderr` | images per second and the time left, at the end of the line of a round; what choosing took | measured |
| `said/stdout` | the line that compares the times of a step | it shows them |

So of config.json only the commit may differ: both sides give the same command, with relative paths, on one machine.
A run that is finished is opened again without any of these masks: there the times are those of the record, and the same
record has to give the same page and the same pictures, `speedup.png` too.
"""  # noqa: E501

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from pathlib import Path

MEASURED = ("step_ms", "dense_step_ms", "seconds")
TIME = "TIME"
COMMIT = re.compile(r'"commit": "([0-9a-f]{12})"')
MILLISECONDS = re.compile(r'"milliseconds": \{([^{}]*)\}')
PACE = re.compile(r"[\d,]+ images/s, [\d:]+ left$|(?<=^choosing what trains the rounds) took .*$", re.MULTILINE)
SPEED = re.compile(r"^A training step of this ticket takes .*$", re.MULTILINE)
RECORD = re.compile(r'\{"sha256": "([0-9a-f]{64})",\n"record": (.*)\}\n', re.DOTALL)
PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
END_OF_SIZE = len(PNG) + 4 + 4 + 8
"""The first chunk of a PNG: four bytes of length, four of name, then width and height."""


def masked(folder: Path, name: str) -> bytes:
    """The file `name` (relative, with "/") of `folder`, which holds `run/` and `said/`, its times masked."""
    content = (folder / name).read_bytes()
    if name == "run/plots/speedup.png":
        return content[:END_OF_SIZE] if content.startswith(PNG) and content.endswith(PNG_END) else content
    mask = MASKS.get(name)
    return content if mask is None else mask(folder, content.decode()).encode()


def _is_time(text: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text)) and float(text) > 0


def _times(row: dict[str, str]) -> dict[str, str]:
    """The entries of a row of rounds.csv that are times; one that does not look like it is not among them."""
    found = {name: row[name] for name in MEASURED if _is_time(row.get(name) or "")}
    ratio = row.get("speedup") or ""
    if {"step_ms", "dense_step_ms"} <= found.keys() and _is_time(ratio):
        by_times = float(found["dense_step_ms"]) / float(found["step_ms"])
        found |= {"speedup": ratio} if float(ratio) == by_times else {}
    return found


def _rounds(folder: Path) -> list[dict[str, str]]:
    """The times of each row of rounds.csv, as they are written."""
    path = folder / "run" / "rounds.csv"
    return [_times(row) for row in csv.DictReader(io.StringIO(path.read_text()))] if path.exists() else []


def _table(folder: Path, text: str) -> str:
    header, *lines = text.split("\n")
    names = header.split(",")
    for at, line in enumerate(lines):
        cells = line.split(",")
        if len(cells) == len(names):
            times = _times(dict(zip(names, cells, strict=True)))
            lines[at] = ",".join(TIME if name in times else cell for name, cell in zip(names, cells, strict=True))
    return "\n".join([header, *lines])


def _record(folder: Path, text: str) -> str:
    whole = RECORD.fullmatch(text)
    if whole and hashlib.sha256(whole[2].encode()).hexdigest() == whole[1]:
        text = text.replace(whole[1], "THAT OF THE CONTENT", 1)
    text = MILLISECONDS.sub(lambda found: f'"milliseconds": {{{", ".join(sorted(found[1].split(", ")))}}}', text)
    for times in _rounds(folder):
        for name, time in times.items():
            text = re.sub(rf'"{name}": {re.escape(time)}(?=[,}}])', f'"{name}": {TIME}', text, count=1)
    return text


def _page(folder: Path, text: str) -> str:
    for times in _rounds(folder):
        if {"step_ms", "dense_step_ms", "speedup"} <= times.keys():
            step, dense, speedup = (f"{float(times[name]):.2f}" for name in ("step_ms", "dense_step_ms", "speedup"))
            cells = f"<td>{step}</td><td>{dense}</td><td>{speedup}\N{MULTIPLICATION SIGN}</td>"
            text = text.replace(cells, f"<td>{TIME}</td>" * 3, 1)
            tile = "<dt>Speedup</dt><dd><b>{}</b>"
            text = text.replace(tile.format(f"{speedup}\N{MULTIPLICATION SIGN}"), tile.format(TIME))
    picture = folder / "run" / "plots" / "speedup.png"
    if picture.exists():
        text = text.replace(base64.b64encode(picture.read_bytes()).decode(), "plots/speedup.png")
    config = folder / "run" / "config.json"
    commit = COMMIT.search(config.read_text()) if config.exists() else None
    return text.replace(f"<dt>commit</dt><dd>{commit[1]}</dd>", "<dt>commit</dt><dd>COMMIT</dd>") if commit else text


MASKS = {
    "run/rounds.csv": _table,
    "run/record.json": _record,
    "run/report.html": _page,
    "run/config.json": lambda _, text: COMMIT.sub('"commit": COMMIT', text),
    "said/stderr": lambda _, text: PACE.sub(TIME, text),
    "said/stdout": lambda _, text: SPEED.sub(TIME, text),
}
"""File -> what masks its times, given the folder and the text."""
