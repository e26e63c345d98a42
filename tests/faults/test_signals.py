"""SIGTERM, SIGHUP and Ctrl-C: the step is saved, it is said where, and the command that goes on is one to be pasted."""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path

import pytest

from lth_sparse.storage import sealed
from tests.faults.conftest import Whole
from tests.faults.effort import chance, faults
from tests.faults.runs import LONGEST, SHORT, Ended, Process, outcome

SAVED = re.compile(r"; step (\d+) of 18 of round (\d) \((\w+)\) is saved: ")
BASE = dict(zip((name[2:].replace("-", "_") for name in SHORT[::2]), SHORT[1::2], strict=True))
SWEEP = "\n".join(["seeds: 1", "base:", *(f"  {name}: {value}" for name, value in BASE.items()), "runs:", "  one: {}"])
"""What `SHORT` says, for one run."""


def resume_command(ended: Ended) -> list[str]:
    """What the last line says goes on, as a shell takes it: the command's name and its arguments."""
    said = re.fullmatch(r"stopped by [-\w]+; .*: python -m lth_sparse\.(\w+) (.*) goes on from there", ended.last_line)
    assert said, ended.said
    return [said[1], *shlex.split(said[2])]


def stopped(process: Process, number: int, when: Path) -> Ended:
    """The process that was begun, sent a signal once the file `when`, a pattern, is there."""
    began = time.monotonic()
    while (
        not any(when.parent.glob(when.name)) and time.monotonic() - began < LONGEST and not process.ends_within(0.005)
    ):
        pass
    process.send(number)
    return process.end()


STEPS, SECONDS_A_STEP = 90, 0.03
"""All of `SHORT`'s. Without a pause, hardly any instant would lie within a training."""


def slow(folder: Path) -> list[str]:
    """Options of a run in `folder` that pauses at each step."""
    folder.mkdir()
    (folder / "slow.py").write_text(f"import time\ndef listen(event):\n    time.sleep({SECONDS_A_STEP})\n")
    return ["--callback", "slow:listen"]


def test_stopped_again_and_again_by_sigterm_a_run_loses_nothing(process: Process, whole: Whole, tmp_path: Path) -> None:
    random, stops, steps, runs = chance("SIGTERM"), 0, 0, 0
    while stops < faults(3) or not steps:
        folder, begun = tmp_path / str(runs), ["run", *SHORT, *slow(tmp_path / str(runs)), "--out", "run"]
        arguments = begun
        runs += 1
        while True:
            process.begin(folder, *arguments)
            if (stops < faults(3) or not steps) and not process.ends_within(
                random.uniform(0.1, 1) * (whole.ended.seconds + STEPS * SECONDS_A_STEP)
            ):
                process.send(signal.SIGTERM)
            ended = process.end()
            if ended.status == 0:
                break
            stops += 1
            if ended.status == -signal.SIGTERM:  # Where nothing of ours is done yet, or no more.
                arguments = [*begun, "--resume"]
                continue
            assert ended.status == 143, ended.said
            arguments = resume_command(ended)
            if found := SAVED.search(ended.last_line):
                steps += 1
                _, data = sealed.read(sorted((folder / "run" / "state").glob("[0-9]*"))[-1])
                assert (data["training"]["iteration"], data["round"], data["arm"]) == (
                    int(found[1]), int(found[2]), found[3],
                )  # fmt: skip
        assert outcome(folder / "run") == whole.left
    print(f"{stops} stops of {runs} runs by SIGTERM, {steps} of them within a training")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_so_do_ctrl_c_and_sighup(process: Process, whole: Whole, tmp_path: Path, number: int, status: int) -> None:
    process.begin(tmp_path, "run", *SHORT, "--out", "run")
    ended = stopped(process, number, tmp_path / "run" / "state" / "000001.safetensors")
    assert ended.status == status, ended.said
    assert len([line for line in ended.said.splitlines() if "stopped by" in line]) == 1
    ended = process.play(tmp_path, *resume_command(ended))
    assert ended.status == 0, ended.said
    assert outcome(tmp_path / "run") == whole.left


def test_a_second_signal_ends_it_at_once(process: Process, tmp_path: Path) -> None:
    """Also where the first is waiting for a step that takes for ever."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def listen(event):\n"
        "    if getattr(event, 'iteration', 0) == 10:\n"
        "        open('reached', 'w').close()\n"
        "        end = time.monotonic() + 100\n"
        "        while time.monotonic() < end: time.sleep(0.01)\n"
    )
    process.begin(tmp_path, "run", *SHORT, "--callback", "slow:listen", "--out", "run")
    began = time.monotonic()
    while not (tmp_path / "reached").exists() and time.monotonic() - began < LONGEST:
        time.sleep(0.01)
    process.send(signal.SIGTERM)
    assert not process.ends_within(0.3)
    process.send(signal.SIGTERM)
    assert process.end().status == -signal.SIGTERM


SEVERAL = {
    "runs/quick-01": ("seed-0", "run", "--replicates", "1", *SHORT),
    "runs/sweep-01": ("one/seed-0", "sweep", "sweep.yaml"),
    "runs/transfer-01": ("seed-0", "transfer", "--ticket", "{ticket}", "--backend", "cpp", "--iterations", "12"),
    "runs/scorecard-01": (
        "lth-conv2/lottery/seed-0", "reproduce", "lth-conv2", "--size", "small", "--replicates", "1", "--backend",
        "cpp", "--cifar10", "images",
    ),
}  # fmt: skip
"""Directory that a command of several runs chooses -> where in it the run is, the command, its arguments."""


@pytest.mark.parametrize("directory", SEVERAL)
def test_commands_of_several_runs_say_where_they_go_on(
    process: Process, whole: Whole, image_folder: Path, tmp_path: Path, directory: str
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    place, *given = SEVERAL[directory]
    process.begin(tmp_path, *(each.format(ticket=whole.out / "tickets" / "round-02.safetensors") for each in given))
    ended = stopped(process, signal.SIGTERM, tmp_path / directory / place / "state" / "000000.safetensors")
    assert ended.status == 143, ended.said
    again = resume_command(ended)
    assert again[-3:] == ["--out", directory, "--resume"]
    if "reproduce" in given:  # Which takes minutes.
        return
    ended = process.play(tmp_path, *again)
    assert ended.status == 0, ended.said
    if "transfer" not in given:
        assert outcome(tmp_path / directory / place) == whole.left
