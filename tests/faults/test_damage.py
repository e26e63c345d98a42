"""Files of an interrupted run, cut short or with a bit flipped anywhere: named, and the state before it used."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.faults.conftest import Whole
from tests.faults.effort import chance, faults
from tests.faults.runs import SHORT, Process, outcome


def cut_short(content: bytes, random: Random) -> bytes:
    """All but something of it, or nothing."""
    return content[: random.randrange(len(content))]


def with_a_bit_flipped(content: bytes, random: Random) -> bytes:
    """One of them, anywhere."""
    at = random.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]


def states(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted((folder / "run" / "state").glob("[0-9]*"))


@pytest.fixture(scope="module")
def interrupted(process: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its last round: two states, the rewind weights, two tickets."""
    folder = tmp_path_factory.mktemp("interrupted")
    process.begin(folder, "run", *SHORT, "--out", "run")
    while not (folder / "run" / "tickets" / "round-01.safetensors").exists():
        assert not process.ends_within(0.002)
    before = states(folder)
    while set(states(folder)[-2:]).intersection(before) or len(states(folder)) < 2:
        assert not process.ends_within(0.002)
    process.send(signal.SIGKILL)
    assert process.end().status == -signal.SIGKILL
    return folder


NEWEST, ALL = "state/newest", "state/all"
KINDS = (
    NEWEST, ALL, "state/rewind.safetensors", "tickets/round-00.safetensors", "tickets/round-01.safetensors",
    "config.json", "record.json", "rounds.csv",
)  # fmt: skip
WRITTEN_AGAIN = ("record.json", "rounds.csv")
"""By the state, which holds all of it."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [cut_short, with_a_bit_flipped])
def test_what_is_damaged_is_named_and_the_run_goes_on_or_says_that_it_cannot(
    process: Process, whole: Whole, interrupted: Path, tmp_path: Path, kind: str, harm: Callable[[bytes, Random], bytes]
) -> None:
    random = chance(f"{kind} {harm.__name__}")
    for number in range(faults(1)):
        folder = tmp_path / str(number)
        shutil.copytree(interrupted, folder)
        damaged = {NEWEST: states(folder)[-1:], ALL: states(folder)}.get(kind, [folder / "run" / kind])
        for path in damaged:
            path.write_bytes(harm(path.read_bytes(), random))
        ended = process.play(folder, "run", "--out", "run", "--resume")
        for path in damaged if kind not in WRITTEN_AGAIN else []:
            named = str(path.relative_to(folder)) in ended.said
            # A bit of what config.json says of the machine, for one, decides nothing.
            assert named or (kind.endswith("json") and ended.status == 0), ended.said
        if kind.endswith("json") and ended.status == 2:
            assert len(ended.said.strip().splitlines()) == 1, ended.said
            continue
        assert ended.status == 0, ended.said
        check(outcome(folder / "run"), whole.left, kind)


def check(left: dict[str, Any], expected: dict[str, Any], kind: str) -> None:
    """Equal, but for what stays damaged."""
    aside = {name for name in left["left"] if name.endswith(".damaged")}
    assert left.pop("left") == sorted(aside | set(expected["left"]))
    lost = Path(kind).name
    assert {name: value for name, value in left.items() if name != lost} == {
        name: value for name, value in expected.items() if name not in (lost, "left")
    }
