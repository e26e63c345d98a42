"""One warm interpreter, and the run that every other one has to equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import SHORT, Ended, Process, outcome


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to: where it lies, what it left, and how it ended."""

    out: Path
    left: dict[str, Any]
    ended: Ended


@pytest.fixture(scope="package")
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.close()


@pytest.fixture(scope="package")
def whole(process: Process, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    # The first takes longer than any after it, and instants are drawn over the seconds of the second.
    for folder in (tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("whole")):
        ended = process.play(folder, "run", *SHORT, "--out", "run")
        assert ended.status == 0, ended.said
    return Whole(folder / "run", outcome(folder / "run"), ended)
