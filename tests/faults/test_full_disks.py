"""A disk that fills: one sentence with the file, nothing half-written, and the same bytes once there is room again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import Whole
from tests.faults.effort import chance, faults
from tests.faults.runs import SHORT, Ended, Process, outcome

RUN = (*SHORT, "--out", "run", "--resume")


def check_refusal(ended: Ended, why: int, out: Path) -> None:
    """One sentence, with a file of the run and what to do; no part of a file is left."""
    assert ended.status == 2, ended.said
    assert ended.last_line.startswith("python -m lth_sparse.run: error: run/"), ended.said
    assert f": {os.strerror(why)}; make room there; what was finished before is whole" in ended.last_line
    assert "Traceback" not in ended.said
    assert not list(out.rglob(".*.part"))


def test_files_that_may_grow_no_larger(process: Process, whole: Whole, tmp_path: Path) -> None:
    """What RLIMIT_FSIZE refuses is what a disk that is full does, in the middle of a file, on any machine."""
    sizes = [path.stat().st_size for path in whole.out.rglob("*") if path.is_file()]
    random = chance("file sizes")
    for number in range(faults(3)):
        folder = tmp_path / str(number)
        # Between the smallest file that matters and a state, which is some times a ticket.
        limit = random.randrange(1000, 4 * max(sizes))
        ended = process.play(folder, "run", *RUN, largest_file=limit)
        if ended.status != 0:
            check_refusal(ended, errno.EFBIG, folder / "run")
        assert process.play(folder, "run", *RUN).status == 0
        assert outcome(folder / "run") == whole.left


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk takes root")
def test_a_small_disk_that_is_made_larger(process: Process, whole: Whole, tmp_path: Path) -> None:
    """What the limit on files tests anywhere, on a disk; it fills at a state, a ticket or a table."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        full = 0
        for kilobytes in range(300, 5000, 700 if faults(0) == 0 else 100):
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)
            ended = process.play(disk, "run", *RUN)
            if ended.status == 0:
                break
            check_refusal(ended, errno.ENOSPC, disk / "run")
            full += 1
        assert ended.status == 0, ended.said
        assert full
        assert outcome(disk / "run") == whole.left
    finally:
        subprocess.run(["umount", disk], check=True)
