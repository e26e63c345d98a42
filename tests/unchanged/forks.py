"""Calls modules and scripts with the lth_sparse of one tree and with no other, each in a fork of this process.

    python -S forks.py PACKAGES [TREE]

Of a short run most is importing PyTorch: here that is done once, for all of them. lth_sparse itself is imported in the
fork, or with TREE here, too, of that tree, for all calls. `-S` keeps out the finder of an editable install, which knows
another tree; PACKAGES are the folders, joined as in PYTHONPATH, where everything else is installed. Each line of
standard input is a call, as JSON: `tree`, `folder` to run in, `stdout` and `stderr`, `target` (a module, or a path that
ends in .py) and its `arguments`. Each is answered by two lines: the process id, and at its end the exit status,
negative for a signal.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

IMPORTED = ("torch", "torchvision", "sklearn.datasets", "matplotlib.backends.backend_agg", "safetensors.torch", "tqdm")


def main() -> None:
    """Answers until standard input ends."""
    # The first entry is the folder of this file.
    sys.path[:] = [*sys.path[1:], *sys.argv[1].split(os.pathsep)]
    for name in IMPORTED:
        importlib.import_module(name)
    if len(sys.argv) > 2:
        sys.path.insert(0, sys.argv[2])
        # What the first step of an optimizer imports takes longer than a tiny run.
        for name in ("lth_sparse.run", "lth_sparse.reproduce", "torch._dynamo"):
            importlib.import_module(name)
    while line := sys.stdin.readline():
        process = os.fork()
        if process == 0:
            _call(**json.loads(line))
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _call(tree: str, folder: str, stdout: str, stderr: str, target: str, arguments: list[str]) -> Any:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for stream, descriptor in enumerate(
        (os.open(os.devnull, os.O_RDONLY), os.open(stdout, flags), os.open(stderr, flags))
    ):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(folder)
    sys.path.insert(0, tree)
    for name in ("lth_sparse", "lth_sparse.kernels"):
        found = importlib.util.find_spec(name)
        origin = Path(found.origin if found and found.origin else "nowhere").resolve()
        assert origin.is_relative_to(Path(tree).resolve()), f"{name} is {origin}, not of {tree}"
    sys.argv = [target, *arguments]
    if target.endswith(".py"):
        return runpy.run_path(target, run_name="__main__")
    return runpy.run_module(target, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
