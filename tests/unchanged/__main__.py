"""`python -m tests.unchanged --base REVISION [--images DIR]`: exit status 0 equal, 1 different, 2 bad input."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from tests.unchanged import checkouts, extension, images
from tests.unchanged.cases import CASES
from tests.unchanged.errors import CheckError
from tests.unchanged.interpreter import ROOT, Interpreter
from tests.unchanged.runs import Code
from tests.unchanged.scenario import AT_ONCE, Scenario
from tests.unchanged.table import differences, table

EQUAL, DIFFERENT, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Compares the working tree at `root` with a revision of it; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.unchanged", description=__doc__)
    parser.add_argument("--base", metavar="REVISION", help="default: the merge base with main, or HEAD")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="train/<class>/* and test/<class>/*, instead of tiny ones"
    )
    given = parser.parse_args(arguments)
    say = partial(print, file=sys.stderr, flush=True)
    try:
        commit = checkouts.commit_called(root, given.base)
        if given.images and not all((given.images / part).is_dir() for part in ("train", "test")):
            raise CheckError(f"--images {given.images}: expected a folder with train/<class>/* and test/<class>/*")
        with tempfile.TemporaryDirectory(prefix="unchanged-") as work, _interpreters() as free:
            return _check(root, commit, given.images, Path(work), free, say)
    except CheckError as error:
        say(f"python -m tests.unchanged: {error}")
        return BAD_INPUT


@contextmanager
def _interpreters() -> Iterator[SimpleQueue[Interpreter]]:
    free: SimpleQueue[Interpreter] = SimpleQueue()
    made = [Interpreter() for _ in range(AT_ONCE)]
    try:
        for interpreter in made:
            free.put(interpreter)
        yield free
    finally:
        for interpreter in made:
            interpreter.close()


def _check(
    root: Path, commit: str, folder: Path | None, work: Path, free: SimpleQueue[Interpreter], say: partial[None]
) -> int:
    if folder is None:
        folder = work / "made"
        images.write(folder)
    base, new = (Code(name, work / "trees" / name, free) for name in ("base", "new"))
    checkouts.copy_of_revision(root, commit, base.tree)
    checkouts.copy_of_working_tree(root, new.tree)
    say(f"base: {commit[:12]}, new: the working tree; building the C++ extension where its sources are not known yet")
    kept = root / "build" / "unchanged"
    if extension.digest(base.tree) == extension.digest(new.tree):
        extension.put(base.tree, kept)
        extension.put(new.tree, kept)
    else:
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(partial(extension.put, kept=kept), (base.tree, new.tree)))
    found = Scenario(work, folder.resolve(), base, new, say).play(CASES)
    changed = 0
    for case in CASES:
        lines = differences(found[case.name])
        changed += len(lines)
        print("\n".join([f"\n{case.name}: {case.command}", table(found[case.name]), *lines]))
    if changed:
        print(f"\nchanged: {changed} of the comparisons differ from the base {commit[:12]}")
        return DIFFERENT
    print(f"\nunchanged: every file is the base's ({commit[:12]}), but for the times")
    return EQUAL


if __name__ == "__main__":
    sys.exit(main())
