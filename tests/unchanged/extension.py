"""The C++ extension of a tree, built in it, or taken from an earlier build of the very same sources."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from tests.unchanged.checkouts import outside_git
from tests.unchanged.errors import CheckError

SOURCES = ("csrc", "setup.py", "pyproject.toml")
FLAGS = ("CXX", "CC", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")


def digest(tree: Path) -> str:
    """SHA-256, in hex, of all that decides what is built: the sources, the compiler and its flags, Python and torch."""
    sha = hashlib.sha256(
        repr((sys.version, torch.__version__, _compiler(), [os.environ.get(f) for f in FLAGS])).encode()
    )
    for source in SOURCES:
        for path in sorted([tree / source, *(tree / source).rglob("*")]):
            if path.is_file():
                content = path.read_bytes()
                sha.update(f"{path.relative_to(tree)} {len(content)}\n".encode() + content)
    return sha.hexdigest()


def _compiler() -> str:
    try:
        called = [*shlex.split(os.environ.get("CXX", "c++")), "--version"]
        return subprocess.run(called, capture_output=True, text=True).stdout
    except OSError:
        return ""


def put(tree: Path, kept: Path) -> None:
    """Puts the extension into `tree`, whose own it is; what was built stays under `kept` for trees with equal sources.

    Raises CheckError when it cannot be built.
    """
    place = kept / digest(tree)
    if not place.exists():
        _build(tree)
        built = sorted(path.relative_to(tree) for path in tree.rglob("*.so") if "build" not in path.parts)
        kept.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=kept, prefix=".part-"))
        _copy(built, tree, part)
        try:
            part.rename(place)
        except OSError:  # Another check was faster.
            shutil.rmtree(part)
    _copy([path.relative_to(place) for path in place.rglob("*.so")], place, tree)


def _copy(names: list[Path], source: Path, target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if not (target / name).exists():
            shutil.copy2(source / name, target / name)


def _build(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree,
        env=outside_git() | {"LTH_SPARSE_CUDA": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or not any(tree.glob("lth_sparse/*.so")):
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise CheckError(
            f"the C++ extension of {tree.name} cannot be built: {lines[-1] if lines else 'nothing was said'}"
        )
