"""What the commands of this package have in common: their options, and errors told in one line."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from lth_sparse.system import home, stopping, torchrun
from lth_sparse.system.errors import OURS, InputError
from lth_sparse.system.messages import say
from lth_sparse.system.stopping import Stopped
from lth_sparse.system.suggest import nearest

UNEXPECTED = 1
BAD_INPUT = 2
SIGNALLED = 128
"""And the number of the signal: the exit status of what a signal stopped."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """Raises InputError for what it does not understand, with the nearest option.

    `examples`: (options, what they are for), shown at the end of the help.
    """

    def __init__(self, program: str, description: str, examples: Sequence[tuple[str, str]] = (), **others: Any) -> None:
        width = shutil.get_terminal_size().columns - 2
        shown = [f"  {what}:\n    {f'{program} {options}'.rstrip()}" for options, what in examples]
        super().__init__(
            prog=program,
            usage=f"{program} [options]",
            description=textwrap.fill(description, width),
            epilog="\n".join(["examples:", *shown]) if shown else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **others,
        )

    def error(self, message: str) -> NoReturn:
        """As argparse calls it."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += nearest(unknown.split(" ")[0], self._option_string_actions)
        raise InputError(message)


def fractions(text: str) -> tuple[float, ...]:
    """From "0.5,0.75". Raises argparse.ArgumentTypeError."""
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected fractions such as 0.5,0.75, given {text}") from error


SECONDS = {"s": 1, "min": 60, "h": 3600}


def duration(text: str) -> float:
    """Seconds, from "90s", "20min" or "1.5h". Raises argparse.ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 20min or 1.5h, given {text}")
    return float(found[1]) * SECONDS[found[2]]


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on, which raises argparse.ArgumentTypeError."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, given {text}")
        return int(text)

    return read


def pair(text: str) -> tuple[str, str]:
    """From "KEY=VALUE". Raises argparse.ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, given {text}")
    return key, value


def sizes(text: str) -> tuple[int, ...]:
    """From "3,32,32". Raises argparse.ArgumentTypeError."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected sizes such as 3,32,32, given {text}") from error
    if min(found) < 1 or max(found) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected sizes of at least 1, and less than 2^31, given {text}")
    return found


def steps(text: str) -> tuple[int, ...]:
    """From "0,100,500"; "none" is a word for none. Raises argparse.ArgumentTypeError."""
    try:
        return () if text == "none" else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected steps such as 0,100,500, given {text!r}") from error


def path(text: str) -> Path:
    """From a name in which ~ is the home directory, as it is for a shell that no quotes or = keep from saying so."""
    return Path(os.path.expanduser(text))


def names(text: str) -> tuple[str, ...]:
    """From "cpp,triton", each once."""
    return tuple(dict.fromkeys(part for part in text.split(",") if part))


def chosen(text: str) -> tuple[str, ...]:
    """The same, where "none" is a word for none of them."""
    return () if text == "none" else names(text)


def check_seed(seed: int) -> None:
    """Raises InputError for one that PyTorch's generators do not take."""
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"--seed {seed}: expected a number of less than 2^63")


def check_file(option: str, given: str | None) -> None:
    """Raises InputError where a file that `option` is to write has no name, or is a folder."""
    if given is not None and (not given or path(given).is_dir()):
        raise InputError(f"--{option} {given or repr(given)}: expected the name of a file to write")


def device(name: str) -> torch.device:
    """The device called auto (a GPU if there is one), cpu, cuda or cuda:N. Of several processes on a machine with GPUs
    each has one of its own. Raises InputError for any other."""
    if name == "auto":
        return torchrun.own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine shows PyTorch {torch.cuda.device_count()} GPUs; choose cpu")
    return torchrun.own_device(found)


def exit_status(
    program: str,
    work: Callable[[], int],
    *,
    on_disk: str = "",
    smaller: str,
    goes_on: Callable[[Stopped], str] = lambda stopped: "",
) -> int:
    """What `work` gives; 2 when it raised for something that the user can change, 128 and the number of the signal that
    stopped it: each told in one line.

    `on_disk`: added after an OSError; `smaller`: what to do when memory runs out; `goes_on`: added where it was
    stopped.
    """
    _printable()
    try:
        with warnings.catch_warnings(), stopping.heard():
            warnings.showwarning = lambda message, *_: say(f"warning: {message}")
            return work()
    except OURS as error:
        return _failed(program, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        room = "; make room there" if error.errno in NO_ROOM else ""
        return _failed(program, f"{where}{error.strerror or error}{room}{on_disk}")
    except Exception as error:
        reason = " ".join(str(error).split())
        if out_of_memory(error):
            return _failed(program, f"out of memory ({reason}); {smaller}")
        say(f"{program}: unexpected {type(error).__name__}: {reason}; please report it{_kept_traceback()}")
        return UNEXPECTED
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        with suppress(OSError):  # The terminal may be gone.
            say(f"stopped by {stopped.by}{goes_on(stopped)}")
        return SIGNALLED + stopped.signal


def resumable_status(program: str, given: Sequence[str], work: Callable[[], int], *, smaller: str) -> int:
    """The same of a command that can go on, by --resume and --out, with what it has written. `given`: its options."""

    def goes_on(stopped: Stopped) -> str:
        named = any(each == "--out" or each.startswith("--out=") for each in given)
        if stopped.out is None and not named:
            return " before anything was written"
        out = [] if named else ["--out", str(stopped.out)]
        resume = [] if "--resume" in given else ["--resume"]
        saved = stopped.saved or "what was finished is whole"
        return f"; {saved}: {home.command(program, [*given, *out, *resume])} goes on from there"

    on_disk = "; what was finished before is whole, and the same command with --resume and this --out goes on from it"
    return exit_status(program, work, on_disk=on_disk, smaller=smaller, goes_on=goes_on)


def out_and_resume(found: dict[str, Any]) -> tuple[Path | None, bool]:
    """What --out and --resume say, which are taken out of `found`. Raises InputError."""
    out: str | None = found.pop("out", None)
    resume: bool = found.pop("resume", False)
    if out == "":
        raise InputError("--out is empty: give a directory")
    if resume and out is None:
        raise InputError("--resume goes on with the run under --out: give --out DIR too")
    return path(out) if out is not None else None, resume


def _printable() -> None:
    """Lets every line out, whatever the streams are: closed ones, ASCII alone, names that are no UTF-8."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out_of_memory(error: Exception) -> bool:
    """Whether it says so: PyTorch raises a RuntimeError on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _kept_traceback() -> str:
    """Keeps the traceback of a mistake of ours in a file, and says where, instead of throwing it at the user."""
    path = Path(tempfile.gettempdir()) / f"lth_sparse-traceback-{os.getpid()}.txt"
    try:
        path.write_text(traceback.format_exc())
    except OSError:
        return ""
    return f" with {path}"


def _failed(program: str, message: str) -> int:
    say(f"{program}: error: {message}")
    return BAD_INPUT
