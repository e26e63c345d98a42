"""The command line of lth_sparse, called with the code of one tree: to its end, or killed on the way.

A run has a folder: there it writes `run/`, and here `said/` is put beside it, with `stdout`, `stderr` and `status`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.unchanged.errors import CheckError
from tests.unchanged.interpreter import HERE, Interpreter

COMMAND = "lth_sparse.run"
LONGEST = 900.0
"""Seconds until a run is taken to hang."""


@dataclass(frozen=True)
class Code:
    """The tree whose code runs, what it is called, and the interpreters that are free."""

    name: str
    tree: Path
    free: SimpleQueue[Interpreter]

    def run(self, folder: Path, arguments: list[str]) -> None:
        """Calls `python -m lth_sparse.run` in `folder`, to its end."""
        self._to_the_end(folder, "stdout", COMMAND, arguments)

    def run_and_kill(self, folder: Path, arguments: list[str], state: int) -> None:
        """The same, killed (SIGKILL) when the state numbered `state`, or a later one, is there.

        Raises CheckError when the run ended before that.
        """
        with self._begun(folder, "stdout", COMMAND, arguments) as interpreter:
            began = time.monotonic()
            while not _reached(folder, state) and not interpreter.ended(0.005) and time.monotonic() - began < LONGEST:
                pass
            if not interpreter.ended(0):
                interpreter.kill()
            status = interpreter.end()
        if status != -signal.SIGKILL or not _reached(folder, state):
            raise CheckError(
                f"{folder.name} with the code of {self.name}: the run had ended before it could be killed at state "
                f"{state}, so nothing was interrupted; run the check again, or give the case more rounds"
            )

    def read_tickets(self, folder: Path) -> None:
        """Writes what the tickets of a finished run hold to `said/tickets`."""
        paths = sorted((folder / "run" / "tickets").iterdir())
        script = str(HERE / "tickets.py")
        self._to_the_end(folder, "tickets", script, [str(path.relative_to(folder)) for path in paths])

    def _to_the_end(self, folder: Path, stdout: str, target: str, arguments: list[str]) -> None:
        with self._begun(folder, stdout, target, arguments) as interpreter:
            in_time = interpreter.ended(LONGEST)
            if not in_time:
                interpreter.kill()
            status = str(interpreter.end()) if in_time else f"none within {LONGEST:.0f} s"
        said = folder / "said"
        reason = "" if status == "0" else f": {_last_line((said / 'stderr').read_text(errors='replace'))}"
        with open(said / "status", "a") as file:
            file.write(f"{status}{reason}\n")

    @contextmanager
    def _begun(self, folder: Path, stdout: str, target: str, arguments: list[str]) -> Iterator[Interpreter]:
        said = folder / "said"
        said.mkdir(exist_ok=True)
        interpreter = self.free.get()
        try:
            interpreter.begin(self.tree, folder, said / stdout, said / "stderr", target, arguments)
            yield interpreter
        finally:
            self.free.put(interpreter)


def _reached(folder: Path, state: int) -> bool:
    """Whether a state numbered `state` or later is there, whole: it is renamed into its place."""
    return any(int(path.stem) >= state for path in (folder / "run" / "state").glob("[0-9]*.safetensors"))


def _last_line(text: str) -> str:
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
