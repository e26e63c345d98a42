"""A command of lth_sparse in a process that a fault happens to: `play.py FAULT COMMAND ARGUMENTS`.

FAULT is JSON: `die_at` N kills the process (SIGKILL) right before the Nth time that it makes something durable or
visible; at its end it says how often it did. `largest_file` is the size in bytes at which a file can grow no more. Each
epoch's state is saved, no plots are drawn and few steps are timed, so that a tiny run is quick and has many places to
go on from.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
"""Of `os`: what a crash can come before or after."""
CALLED = "calls that matter: "


def die_at(number: int) -> Callable[[], int]:
    """Kills this process right before the call of that number, from 1 on. Gives what gives their number so far."""
    made = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counting

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: made


def make_quick(put: Callable[[object, str, Any], None]) -> None:
    """Puts what makes a tiny run quick in the place of what takes time."""
    put(importlib.import_module("lth_sparse.report"), "pictures", lambda info, record: [])
    put(importlib.import_module("lth_sparse.lottery.saving"), "LARGEST_SHARE", math.inf)
    put(importlib.import_module("lth_sparse.system.timing"), "PATIENCE_SECONDS", 0.0)


def main() -> int:
    """Plays it."""
    fault, command, arguments = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
    module = importlib.import_module(f"lth_sparse.{command}")
    make_quick(setattr)
    if "largest_file" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["largest_file"],) * 2)
    calls = die_at(fault.get("die_at", 0))
    status: int = module.main(arguments)
    print(f"{CALLED}{calls()}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
