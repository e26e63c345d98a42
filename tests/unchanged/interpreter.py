"""A Python process that has PyTorch imported and makes one call at a time, each in a fork (`forks.py`)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.unchanged.checkouts import outside_git
from tests.unchanged.errors import CheckError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Equal for all calls, and one thread each, because two calls share the machine.
SAME = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Interpreter:
    """`begin` a call, then wait for its `end`."""

    def __init__(self, environment: Mapping[str, str] | None = None, tree: Path | None = None) -> None:
        """`environment`: of all calls (default: this process's, outside of git). `tree`: the one that all calls are
        of, whose lth_sparse is imported but once then."""
        packages = [entry for entry in sys.path if Path(entry).is_dir() and Path(entry).resolve() != ROOT]
        given = outside_git() if environment is None else environment
        inherited = {name: value for name, value in given.items() if name != "PYTHONPATH"}
        # Without a buffer: what was not read is seen by select.
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(HERE / "forks.py"), os.pathsep.join(packages), *([str(tree)] if tree else [])],
            env=inherited | SAME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._call = 0

    def begin(self, tree: Path, folder: Path, stdout: Path, stderr: Path, target: str, arguments: list[str]) -> None:
        """Calls `target`, a module or a path that ends in .py, in `folder`, with the lth_sparse of `tree`."""
        paths = {"tree": tree, "folder": folder, "stdout": stdout, "stderr": stderr}
        call = {name: str(path) for name, path in paths.items()} | {"target": target, "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call).encode() + b"\n")
        self._call = self._read()

    def ended(self, seconds: float) -> bool:
        """Whether the call ends within `seconds`."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends the call a signal (default: SIGKILL). It may have ended by itself."""
        with suppress(ProcessLookupError):
            os.kill(self._call, number)

    def end(self) -> int:
        """The exit status of the call, negative for a signal; waits for it."""
        return self._read()

    def close(self) -> None:
        """Ends the process, and a call with it."""
        if not self._process.poll() and self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckError("the Python process that makes the runs has ended; what it said stands above")
        return int(line)
