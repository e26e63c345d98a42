"""Signals that ask a command to stop, and a library that leaves them to the program that imports it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lth_sparse.system import stopping
from lth_sparse.system.stopping import Stopped

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nobody_else_hears() -> Iterator[None]:
    """What libraries of earlier tests listen with, such as Ray, is set aside."""
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    for number in stopping.SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """To this process, which hears it between two instructions."""
    os.kill(os.getpid(), number)
    time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_what_is_done_and_the_next_one_is_the_systems(number: int) -> None:
    before, afterwards = signal.getsignal(number), set()

    def work() -> None:
        try:
            send(number)
        finally:
            afterwards.update(signal.getsignal(each) for each in stopping.SIGNALS)

    with pytest.raises(Stopped) as stopped, stopping.heard():
        work()
    assert stopped.value.signal == number
    assert afterwards == {signal.SIG_DFL}
    assert signal.getsignal(number) is before


def test_what_is_deferred_is_done_to_its_end() -> None:
    done = []

    def work() -> None:
        with stopping.deferred():
            send(signal.SIGTERM)
            done.append(stopping.asked())
        done.append("too much")

    with pytest.raises(Stopped), stopping.heard():
        work()
    assert done == [True]
    assert not stopping.asked()


def test_an_error_is_told_before_a_signal_that_waits() -> None:
    def work() -> None:
        send(signal.SIGTERM)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"), stopping.heard(), stopping.deferred():
        work()


def test_nohup_and_the_programs_own_handlers_are_left_alone() -> None:
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        with stopping.heard():
            send(signal.SIGHUP)
            send(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("argv", "orig_argv", "ours"),
    [
        (["-m"], ["python", "-m", "lth_sparse.run", "--help"], True),
        (["-m"], ["python", "-P", "-mlth_sparse"], True),
        ([f"{os.path.dirname(sys.executable)}/lth"], ["python", "lth", "run"], True),
        (["-m"], ["python", "-m", "mine.lth_sparse"], False),
        (["somewhere/lth"], ["python", "somewhere/lth"], False),
        (["train.py", "-m"], ["python", "train.py", "-m", "lth_sparse"], False),
        (["-c"], ["python", "-c", "import lth_sparse"], False),
        ([], ["python"], False),
    ],
)
def test_which_processes_are_commands_of_ours(
    argv: list[str], orig_argv: list[str], ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert stopping.is_one_of_our_commands() == ours


@pytest.mark.parametrize("program", [["-m", "lth_sparse.run"], ["-m", "lth_sparse", "doctor"]])
def test_ctrl_c_while_a_command_is_imported_is_one_line(program: list[str]) -> None:
    started = subprocess.Popen([sys.executable, *program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while "libtorch" not in Path(f"/proc/{started.pid}/maps").read_text():
        assert started.poll() is None
        time.sleep(0.002)
    started.send_signal(signal.SIGINT)
    assert started.communicate(timeout=60)[1] == "interrupted\n"
    assert started.returncode == 130


def test_the_library_leaves_ctrl_c_to_the_program() -> None:
    program = "import lth_sparse, signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
