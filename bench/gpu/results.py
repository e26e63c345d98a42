"""The file of what a GPU showed, written as it is found, and the time that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUDGET_SECONDS = 440
"""After which nothing new is begun; what is under way takes some seconds more. 8 minutes in all."""


class Results:
    """What was found so far, written to its file at each step. `began`: by time.monotonic(), when the command did."""

    def __init__(self, path: Path, about: dict[str, Any], began: float) -> None:
        self.path = path
        self.found: dict[str, Any] = {**about, "layers": [], "auto": [], "steps": [], "failed": []}
        self.began = began

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def over(self) -> bool:
        """Whether the time is up; said once."""
        late = self.seconds > BUDGET_SECONDS
        if late and not self.found.get("cut_short"):
            self.found["cut_short"] = True
            say(f"{BUDGET_SECONDS} s are over: what is left is not measured")
        return late

    def attempt(self, what: str, measure: Callable[[], None]) -> None:
        """Measures, unless the time is up; what fails is kept as a result, and the rest goes on."""
        if self.over():
            return
        try:
            measure()
        except Exception as error:
            self.failed(what, error)
        say(f"{what}, after {self.seconds:.0f} s")
        self.write()

    def failed(self, what: str, error: Exception) -> None:
        """Keeps a failure as a result."""
        self.found["failed"].append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"[:500])
        say(f"FAILED {self.found['failed'][-1]}")

    def left(self, most: float) -> float:
        """So many seconds, or what is left of the time."""
        return max(5.0, min(most, BUDGET_SECONDS - self.seconds))

    def write(self) -> None:
        """The file, whole at any time."""
        self.found["seconds"] = round(self.seconds, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        partial.replace(self.path)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)
