"""A power cut at any instant: what a run has finished stays finished, and it goes on from the state it saved last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lth_sparse import run
from lth_sparse.storage.run_directory import RunDirectory
from tests.faults.effort import chance, faults
from tests.faults.play import make_quick
from tests.faults.power import Disk, all_or_nothing
from tests.faults.runs import SHORT, outcome


@dataclass(frozen=True)
class Recorded:
    disk: Disk
    out: Path
    left: dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch.setattr)
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run, and all that it did to the disk. It is marked where a state or the run is promised to be there."""
    out, disk = tmp_path_factory.mktemp("power").resolve() / "run", Disk()
    write_state = RunDirectory.write_state

    def write_and_mark(self: RunDirectory, *state: Any) -> None:
        write_state(self, *state)
        disk.mark("saved", max(path.stem for path in (out / "state").glob("[0-9]*")))

    with pytest.MonkeyPatch.context() as patch, disk.recorded():
        patch.setattr(RunDirectory, "write_state", write_and_mark)
        assert run.main([*SHORT, "--out", str(out)]) == 0
        disk.mark("finished")
    return Recorded(disk, out, outcome(out))


def whole_states(out: Path) -> list[str]:
    store = RunDirectory(out, lambda line: None)
    found = store.read_state()
    return [] if found is None else [path.stem for path in (out / "state").glob("[0-9]*.safetensors")]


def test_what_was_promised_is_there_after_any_cut(recorded: Recorded, tmp_path: Path) -> None:
    random, cuts = chance("power"), 0
    events = recorded.disk.events
    where = range(1, len(events) + 1)
    for before in where if faults(0) else [*random.sample(where, 60), len(events)]:
        marks = [event for event in events[:before] if event.kind in ("saved", "finished")]
        for survives in all_or_nothing(random):
            out = tmp_path / "cut"
            recorded.disk.cut(before, recorded.out, out, survives)
            cuts += 1
            if marks and marks[-1].kind == "finished":
                assert outcome(out) == recorded.left
            elif marks:
                over = RunDirectory(out, print).read_record().rounds
                states = whole_states(out)
                assert len(over) == 3 or max(states) >= marks[-1].path, (before, marks[-1], states)
            shutil.rmtree(out, ignore_errors=True)
    print(f"{cuts} cuts in {len(events)} events")


def test_after_a_cut_a_run_ends_with_the_same_bytes(recorded: Recorded, tmp_path: Path) -> None:
    random, events = chance("power and on"), recorded.disk.events
    for number in range(faults(4)):
        out = tmp_path / str(number)
        recorded.disk.cut(random.randrange(1, len(events)), recorded.out, out, lambda: random.random() < 0.5)
        arguments = ["--out", str(out), "--resume"]
        if not (out / "config.json").exists():
            arguments += SHORT
        assert run.main(arguments) == 0
        assert outcome(out) == recorded.left
