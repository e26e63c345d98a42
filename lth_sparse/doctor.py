"""`python -m lth_sparse.doctor`: what is installed, what works here, and a self-test. For bug reports."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import torch

from lth_sparse.system import command_line
from lth_sparse.system.errors import because
from lth_sparse.verification import installation, selftest
from lth_sparse.verification.installation import Facts
from lth_sparse.verification.judgement import Row
from lth_sparse.verification.table import verdict

PROGRAM = "python -m lth_sparse.doctor"
FAILED = 1
SECTIONS: dict[str, Callable[[], Facts]] = {
    "versions": installation.versions,
    "processor": installation.processor,
    "GPU": installation.gpus,
    "environment variables": installation.variables,
    "backends": installation.backends_here,
}


EXAMPLES = (
    ("", "what works here"),
    ("> doctor.txt", "the same, kept for a bug report"),
    ("&& echo all well", "exit status 0 means that all that should work does"),
)


def parser(program: str = PROGRAM) -> command_line.Parser:
    """The command line, which has no options."""
    return command_line.Parser(
        program,
        "Says what is installed, which backends work here and why the others do not, and tests those that do on small "
        "layers. Exit status 1 when one of them fails. Paste what it prints into a bug report.",
        EXAMPLES,
    )


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 all that should work does, 1 something fails, 2 bad input."""

    def work() -> int:
        parser(program).parse_args(sys.argv[1:] if arguments is None else list(arguments))
        return _examine(program)

    return command_line.exit_status(program, work, smaller="free some memory")


def _examine(program: str) -> int:
    print(f"{program}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    for title, section in SECTIONS.items():
        _print(title, _found(section))
    began = time.perf_counter()
    results, passed = _self_test()
    _print(f"self-test, {time.perf_counter() - began:.1f} s", results)
    print("\nall that works here passed the self-test" if passed else "\nFAILED: see the self-test above")
    return 0 if passed else FAILED


def _found(section: Callable[[], Facts]) -> Facts:
    """What a section says; whatever keeps it from being found out is said in its place."""
    try:
        return section()
    except Exception as error:
        return [("not known", because(error))]


def _self_test() -> tuple[Facts, bool]:
    """A line for each backend and device, and whether all passed."""
    found: Facts = []
    passed = True
    for name in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        try:
            with warnings.catch_warnings():
                # Of layers that are left to dense, which the lines below say.
                warnings.simplefilter("ignore")
                by_backend = selftest.rows(torch.device(name))
        except Exception as error:
            found.append((name, f"FAILED: {because(error)}"))
            passed = False
            continue
        for backend, rows in by_backend.items():
            found.append((f"{backend} on {name}", _words(rows)))
            passed = passed and all(row.holds for row in rows)
    return found, passed


def _words(rows: Sequence[Row]) -> str:
    beyond = [f"{row.part}: {verdict(row)} {row.failed}".strip() for row in rows if not row.holds]
    if beyond:
        return f"FAILED: {'; '.join(beyond)}"
    worst = max(judged.of_bound for row in rows for judged in row.judged.values())
    left = [row.part for row in rows if row.computed_by == "dense" and row.backend not in ("auto", "dense")]
    note = f"; computed by dense: {', '.join(left)}" if left else ""
    return f"ok: {', '.join(row.part for row in rows)}: largest error {worst:.2f} of its bound{note}"


def _print(title: str, facts: Facts) -> None:
    print(f"\n{title}")
    width = max((len(name) for name, _ in facts), default=0)
    for name, words in facts:
        print(f"  {name.ljust(width)}  {' '.join(words.split())}")


if __name__ == "__main__":
    sys.exit(main())
