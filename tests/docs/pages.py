"""Runs what the pages show, as a reader would: Python in one namespace a page, commands in a checkout of its own.

Sybil finds Python blocks; `Commands` each line of a `bash` block and each command that stands in the text as `code`,
also in a table whose head begins the command. A test has the name of its page and line. `cuts.py` says which commands
are cut short; their tests have `cut` in their names.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.integration.pytest import pytest_integration
from sybil.parsers.markdown import CodeBlockParser

from lth_sparse import doctor, infer, reproduce, run, sweep, transfer, verify
from lth_sparse.experiments import coursework
from lth_sparse.settings import config
from tests.docs.cuts import NEEDED, shortened
from tests.unchanged.interpreter import Interpreter

ROOT = Path(__file__).resolve().parents[2]
OURS = {module.__name__.split(".")[1]: module for module in (run, transfer, sweep, reproduce, verify, infer, doctor)}
LIMIT, LIMIT_OF_CUT = 60, 300
"""Seconds for a command as it stands, and for one that was cut short already."""

GOES_ON = re.compile(r"\brun\b(?!.*--help)|runs/|my_module")
"""What a page goes on from, or what goes on from it; any other command does the same on every page, and runs once."""

ALONE = re.compile(rf"(?:python -m lth_sparse\.|lth )({'|'.join(OURS)})((?: [^|>;&~$*]+)?)")
"""A command of ours, and its options, that asks nothing of a shell."""

BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:(?:make|python|pip|pytest|lth) [^`]+|pytest|\.ci/run))`")
ARGUMENTS = re.compile(r"`(ARGS=[^`]+)`")
TABLE = re.compile(r"^\| `([^`]+)` \.\.\. \|.*\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| `(--[^`]+)` \|", re.MULTILINE)


def commands(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each command of a page begins and ends, and what it is; not in the order of the page."""
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        if block[1] == "bash":
            for line in re.finditer(r"^(?!#)(?:.*\\\n)*.*\S.*$", block[2], re.MULTILINE):
                start = block.start(2)
                yield start + line.start(), start + line.end(), re.sub(r"\s+#.*", "", line[0])
    prose = BLOCK.sub(lambda block: " " * len(block[0]), text)
    for found in COMMAND.finditer(prose):
        yield found.start(), found.end(), " ".join(found[1].split())
    for found in ARGUMENTS.finditer(prose):
        verbs = re.findall(r"`(make [\w-]+)", prose[: found.start()])
        yield found.start(), found.end(), f"{verbs[-1]} {found[1]}"
    for table in TABLE.finditer(prose):
        for row in ROW.finditer(table[2]):
            yield table.start(2) + row.start(), table.start(2) + row.end(), f"{table[1]} {row[1]}"


_done_for_all: dict[str, str | None] = {}


class Commands:
    """A Sybil parser: the commands of a page, each to be run by its checkout."""

    def __call__(self, document: Document) -> Iterable[Region]:
        """The regions of the document."""
        rounds = max(map(int, re.findall(r"tickets/round-(\d+)", document.text)), default=1)
        for start, end, command in commands(document.text):
            yield Region(start, end, (command, rounds), self.evaluate)

    @staticmethod
    def evaluate(example: Example) -> str | None:
        """What went wrong, for Sybil; None if nothing did."""
        command, rounds = example.parsed
        return checkout_of(example).run(command, rounds)


class Checkout:
    """A copy of this repository under a temporary folder, with a virtual environment that stands for a reader's own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lth_sparse-page-"))
        self.path = self.folder / "lth_sparse"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__", ".*_cache", ".benchmarks"
        )
        shutil.copytree(ROOT, self.path, ignore=ignored)
        for built in (ROOT / "lth_sparse").glob("*.so"):
            (self.path / "lth_sparse" / built.name).symlink_to(built)
        environment = self.path / ".venv"
        environment.mkdir()
        for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
            if (Path(sys.prefix) / name).exists():
                (environment / name).symlink_to(Path(sys.prefix) / name)
        for mark in ("ready", "ready-docs"):  # Newer than what the Makefile makes them from.
            (environment / mark).touch()
        (self.folder / "home").mkdir()
        self.done: dict[str, str | None] = {}
        self._interpreter: Interpreter | None = None

    def run(self, command: str, rounds: int = 1, limit: float | None = None) -> str | None:
        """Runs the command, or what stands for it; what went wrong, or None. The same one is not run twice."""
        read_by_the_real_parser(command)
        for pattern, maker in NEEDED:
            needed = re.search(pattern, command)
            if needed and not (self.path / needed.expand(r"\1" if needed.re.groups else "my_module.py")).exists():
                failed = self.run(needed.expand(maker) if needed.re.groups else maker, rounds)
                if failed:
                    return failed
        given, reason = shortened(command, rounds)
        done = self.done if GOES_ON.search(given) else _done_for_all
        if given not in done:
            done[given] = self._failure(given, limit or (LIMIT_OF_CUT if reason else LIMIT))
        failed = done[given]
        if failed is None:
            return None
        stands_for = f"run as:  {given}\nbecause: {reason}\n" if given != command else ""
        hint = "" if reason else "; a row of CUTS in tests/docs/cuts.py can cut it short"
        return f"command: {command}\n{stands_for}{failed.replace('{hint}', hint)}"

    def _failure(self, command: str, limit: float) -> str | None:
        if (found := ALONE.fullmatch(command)) is not None:
            return self._failure_in_a_fork(f"lth_sparse.{found[1]}", shlex.split(found[2]), limit)
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.path, env=self._environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return _too_long(limit, output)
        return _told(process.returncode, output)

    def _failure_in_a_fork(self, module: str, arguments: list[str], limit: float) -> str | None:
        """The same of a command of ours, which starts with all imported but ourselves: most of a short one is that."""
        if self._interpreter is None:
            self._interpreter = Interpreter(self._environment())
        said = self.folder / "said"
        said.unlink(missing_ok=True)
        self._interpreter.begin(self.path, self.path, said, said, module, arguments)
        in_time = self._interpreter.ended(limit)
        if not in_time:
            self._interpreter.kill()
        status = self._interpreter.end()
        output = said.read_text()
        return _told(status, output) if in_time else _too_long(limit, output)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
        inherited.pop("PYTHONPATH", None)
        return inherited | {
            "PATH": f"{self.path / '.venv/bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "MPLCONFIGDIR": matplotlib.get_configdir(),
            "LTH_SPARSE_CUDA": "0",
            "OMP_WAIT_POLICY": "passive",
        }

    def remove(self) -> None:
        """The copy, not what it links to."""
        if self._interpreter is not None:
            self._interpreter.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _told(status: int, output: str) -> str | None:
    return None if status == 0 else f"exit status {status}\n{output[-4000:]}"


def _too_long(limit: float, output: str) -> str:
    return f"it took more than {limit:g} seconds{{hint}}\n{output[-4000:]}"


def read_by_the_real_parser(command: str) -> None:
    """Raises InputError for options that the package's own commands would not take, cut short or not."""
    found = re.fullmatch(rf"(?:python -m lth_sparse\.|lth )({'|'.join(OURS)})((?: [^|>;&]+)?)", command)
    if found is None or not found[2] or "--help" in command:
        return
    given = OURS[found[1]].parser().parse_args(shlex.split(found[2]))
    if found[1] == "run" and getattr(given, "preset", "") != coursework.PRESET:
        names = {setting.name for setting, *_ in config.settings()}
        config.build({name: value for name, value in vars(given).items() if name in names})


def checkout_of(example: Example) -> Checkout:
    """The one of the example's page, made when the first example needs it."""
    kept: Checkout = example.namespace.setdefault("_checkout", None) or Checkout()
    example.namespace["_checkout"] = kept
    return kept


def _python(example: Example) -> None:
    before = Path.cwd()
    os.chdir(checkout_of(example).path)
    try:
        PythonEvaluator()(example)
    finally:
        os.chdir(before)


def _remove_checkout(namespace: dict[str, Any]) -> None:
    if "_checkout" in namespace:
        namespace.pop("_checkout").remove()


class Pages(Sybil):
    """Pages by their patterns; tests by line, and by whether the command is cut."""

    def identify(self, example: Example) -> str:
        """The test's name within its page."""
        if isinstance(example.parsed, tuple):
            command, rounds = example.parsed
            cut = ", cut" if shortened(command, rounds)[0] != command else ""
            return f"line {example.line}: {command.split(' --')[0]}{cut}"
        return f"line {example.line}: python"


FIGURES = ("docs/results/README.md", "docs/cpu-kernels.md", "docs/lotteries.md")
"""Pages whose commands measure what they show, which takes minutes even when cut: `make test` reads their options,
`make test-long` runs them."""


def takes_long(item: pytest.Item) -> bool:
    """Whether this is a command of a page of figures."""
    parsed = getattr(getattr(item, "example", None), "parsed", None)
    return isinstance(parsed, tuple) and str(item.path.relative_to(ROOT)) in FIGURES


PAGES = ("README.md", "CONTRIBUTING.md", "csrc/README.md", "docs/*.md", "docs/results/*.md")
SCRIPTS = ("examples/*.py", "notebooks/*.py")

collect = pytest_integration(
    Pages([CodeBlockParser("python", _python), Commands()], patterns=PAGES, excludes=("bench/**/*.md",),
          path=str(ROOT), teardown=_remove_checkout),
    Pages([Commands()], patterns=SCRIPTS, path=str(ROOT), teardown=_remove_checkout, document_types={".py": Document}),
)  # fmt: skip
"""pytest's hook: the tests of a page, None for another file."""
