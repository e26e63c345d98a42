"""Two copies to run from: one of a revision, one of the working tree as it is, edits and new files included.

Each copy is a git checkout of its own with one commit, so that a run finds the commit that it records.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.unchanged.errors import CheckError

AUTHOR = ("-c", "user.name=unchanged", "-c", "user.email=unchanged@localhost", "-c", "commit.gpgsign=false")


def outside_git() -> dict[str, str]:
    """The environment without what git tells a hook: it would lead every other checkout back to the hook's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, env=outside_git(), capture_output=True)
    except FileNotFoundError as error:
        raise CheckError("git is not installed, and the base revision comes from it") from error


def _must(done: subprocess.CompletedProcess[bytes]) -> bytes:
    if done.returncode:
        raise CheckError(f"{' '.join(done.args)} failed: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout


def commit_called(root: Path, revision: str | None) -> str:
    """The full hash of `revision`; by default of the merge base with the branch main, or where there is none, of HEAD.

    Raises CheckError when `root` is no git checkout or has no such revision.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top.returncode or Path(os.fsdecode(top.stdout.rstrip(b"\n"))).resolve() != root.resolve():
        raise CheckError(f"{root} is not a git checkout, so it has no base revision to compare with")
    if revision is None:
        found = _git(root, "merge-base", "HEAD", "main")
        if found.returncode == 0:
            return found.stdout.decode().strip()
        revision = "HEAD"
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise CheckError(f"--base {revision}: there is no such revision in {root}; see git log")
    return found.stdout.decode().strip()


def copy_of_revision(root: Path, commit: str, target: Path) -> None:
    """Puts the tree of `commit` at `target`, which is made."""
    target.mkdir(parents=True)
    archive = _must(_git(root, "archive", "--format=tar", commit))
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True)
    _commit(target)


def copy_of_working_tree(root: Path, target: Path) -> None:
    """Puts what git would not ignore of the working tree at `target`, which is made."""
    target.mkdir(parents=True)
    for name in _must(_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")).split(b"\0"):
        path = root / os.fsdecode(name)
        # A file that was deleted is still in the index; a folder is a checkout inside this one.
        if path.is_file() and name:
            copy = target / os.fsdecode(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy, follow_symlinks=False)
    _commit(target)


def _commit(target: Path) -> None:
    _must(_git(target, "init", "--quiet"))
    _must(_git(target, "add", "--all"))
    _must(_git(target, *AUTHOR, "commit", "--quiet", "--no-verify", "--message", "as it is run"))
