"""Signals that ask a command to stop: Ctrl-C, SIGTERM, SIGHUP. It stops where it can go on from, and says so.

Of a library that is imported by somebody else's program none of this is done: signals are heard inside `heard` alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT

_asked = 0
"""The signal that asked, 0 where none did."""
_deferred = False


class Stopped(KeyboardInterrupt):
    """The command was asked to stop by `signal`. `saved`: what was saved for that, if anything; `out`: the directory
    under which it can go on, where one was written to."""

    def __init__(self, signal: int, saved: str = "") -> None:
        super().__init__(signal)
        self.signal = signal
        self.saved = saved
        self.out: Path | None = None

    @property
    def by(self) -> str:
        """What asked, as it is called."""
        return "Ctrl-C" if self.signal == signal.SIGINT else signal.Signals(self.signal).name


@contextmanager
def heard() -> Iterator[None]:
    """Inside, a signal raises Stopped, or waits for `stop_if_asked` where it is `deferred`; a second one ends the
    process at once. What is ignored stays so, as nohup wants it, and what the program hears itself stays its own.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():  # Where Python hears no signals.
        yield
        return
    _asked = 0
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number, handler in before.items() if handler in _DEFAULT]

    def hear(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = number
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        if not _deferred:
            raise Stopped(number)

    for number in ours:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
        _asked = 0


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, nothing is interrupted: who asks to stop is answered by `stop_if_asked`, or at the end."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    if _asked:
        raise Stopped(_asked)


def asked() -> bool:
    """Whether a signal asks to stop."""
    return _asked != 0


def stop(saved: str) -> NoReturn:
    """Does as it was asked. `saved`: what was saved for that."""
    raise Stopped(_asked, saved)


def is_one_of_our_commands() -> bool:
    """Whether this process is `python -m lth_sparse...` or the script `lth`, while the package is being imported."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # As long as the module is looked for.
        return any(each.removeprefix("-m").split(".")[0] == "lth_sparse" for each in sys.orig_argv[1:])
    return os.path.basename(program) == "lth" and os.path.dirname(program) == os.path.dirname(sys.executable)


def end_quietly_while_importing() -> None:
    """Ctrl-C is one line until `heard` hears it: imports take seconds, in which a traceback would tell nobody
    anything."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


_DEFAULT = (signal.SIG_DFL, signal.default_int_handler, _end)
