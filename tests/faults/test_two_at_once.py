"""Two commands started on one `--out` at once: one of them does it, the other says that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Whole
from tests.faults.runs import SHORT, Process, outcome

REFUSED = ("another process is writing there; wait for it", "add --resume to go on with it")


@pytest.fixture
def other() -> Iterator[Process]:
    made = Process()
    yield made
    made.close()


@pytest.mark.parametrize("several", [(), ("--replicates", "1")])
def test_the_second_refuses(
    process: Process, other: Process, whole: Whole, tmp_path: Path, several: tuple[str, ...]
) -> None:
    begun = [(process, tmp_path / "one"), (other, tmp_path / "other")]
    for which, folder in begun:
        which.begin(folder, "run", *SHORT, *several, "--out", tmp_path / "run")
    ends = sorted((which.end() for which, _ in begun), key=lambda ended: ended.status)
    assert [ended.status for ended in ends] == [0, 2], [ended.said for ended in ends]
    assert any(words in ends[1].last_line for words in REFUSED), ends[1].said
    assert ends[1].said.count("\n") <= 1 + bool(several)
    assert outcome(tmp_path / "run" / "seed-0" if several else tmp_path / "run") == whole.left
