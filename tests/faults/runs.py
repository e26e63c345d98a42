"""Tiny runs, each in a fork of a warm interpreter: begun, sent a signal, gone on with, compared with a whole one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_sparse.storage.record import TIME_COLUMNS
from tests.conftest import table
from tests.faults.play import CALLED
from tests.unchanged.interpreter import HERE, ROOT, Interpreter

PLAY = str(HERE.parent / "faults" / "play.py")
LONGEST = 600.0
"""Seconds until a run is taken to hang."""
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", "2", "--batch-size", "200", "--iterations", "18",
    "--evaluate-every", "6", "--backend", "cpp", "--device", "cpu",
)  # fmt: skip
"""Three trainings and two controls, of three epochs each."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal, what it said, its seconds, and how many calls of it
    `die_at` could have come before; 0 where it was killed."""

    status: int
    said: str
    seconds: float

    calls: int

    @property
    def last_line(self) -> str:
        """Of standard error."""
        return self.said.strip().splitlines()[-1] if self.said.strip() else ""


class Process:
    """One process after the other, each `begin` followed by an `end`."""

    def __init__(self) -> None:
        self._interpreter = Interpreter(tree=ROOT)
        self._began = 0.0
        self._stderr = Path()

    def begin(self, folder: Path, command: str, *arguments: object, **fault: Any) -> None:
        """`command`, such as "run", in `folder`; `fault`: as `play.py` takes it."""
        folder.mkdir(exist_ok=True, parents=True)
        self._stderr = folder / "stderr"
        self._stderr.write_bytes(b"")  # It may be killed before it opens the file.
        given = [json.dumps(fault), command, *map(str, arguments)]
        self._began = time.monotonic()
        self._interpreter.begin(ROOT, folder, folder / "stdout", self._stderr, PLAY, given)

    def ends_within(self, seconds: float) -> bool:
        """Whether it does, so that no signal is needed."""
        return self._interpreter.ended(seconds)

    def send(self, number: int) -> None:
        """Sends it a signal, if it has not ended."""
        self._interpreter.kill(number)

    def end(self) -> Ended:
        """Waits for its end."""
        if not self._interpreter.ended(LONGEST):
            self._interpreter.kill()
        status = self._interpreter.end()
        said, _, calls = self._stderr.read_text(errors="replace").partition(CALLED)
        return Ended(status, said, time.monotonic() - self._began, int(calls or 0))

    def play(self, folder: Path, command: str, *arguments: object, **fault: Any) -> Ended:
        """Both."""
        self.begin(folder, command, *arguments, **fault)
        return self.end()

    def close(self) -> None:
        """Ends the interpreter."""
        self._interpreter.close()


def outcome(out: Path) -> dict[str, Any]:
    """What a run has to leave bit for bit, whatever happened to it: its tables without times, the bytes of its tickets,
    and no state. Pictures, which only the jobs of a sweep draw here, do not count."""
    rounds = [
        {name: value for name, value in row.items() if name not in TIME_COLUMNS} for row in table(out / "rounds.csv")
    ]
    whole = {path.name: path.read_bytes() for path in (out / "curves.csv", out / "layers.csv")}
    tickets = {path.name: path.read_bytes() for path in sorted((out / "tickets").iterdir())}
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.suffix != ".png")
    return {"rounds": rounds, **whole, **tickets, "left": left}
