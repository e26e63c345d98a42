"""`make sweeps`: many tiny runs whose processes are killed at random, and the sweep itself now and then.

    python -m tests.experiments.killed_at_random --runs 200 --seed 0

None may be lost or played twice, and the table has to be that of the same sweep without kills.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torch import nn

from lth_sparse import report
from lth_sparse.models import lenet

BASE = (
    '{dataset: digits, model: "tests.experiments.killed_at_random:network", rounds: 1, iterations: 30, backend: dense, '
    "controls: none}"
)
KILLS_OF_JOBS_TO_ONE_OF_THE_SWEEP = 25


def network(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """lenet-300-100, in a process that draws no plots, which would take most of its time."""
    report.pictures = lambda info, record: []
    return lenet.lenet_300_100(input_shape, classes)


def main() -> int:
    """Plays the sweep twice, killed and whole; prints what was counted; 1 where that is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="on average, a kill")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lth_sparse-sweeps-") as folder:
        spec = Path(folder) / "sweep.yaml"
        runs = "".join(f"  run-{number}: {{seed: {number}}}\n" for number in range(given.runs))
        spec.write_text(f"base: {BASE}\nruns:\n{runs}")
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        began = time.monotonic()
        kills, of_the_sweep, statuses = _killed_at_random(spec, killed, given.every, random.Random(given.seed))
        took = time.monotonic() - began
        status = _started(spec, whole).wait()
        took_whole = time.monotonic() - began - took
        logs = [path.read_text() for path in sorted((killed / "job_logs").glob("*.log"))]
        processes = sum(log.count("process ") for log in logs)
        finished = sum(1 for path in killed.glob("run-*/seed-*") if _is_finished(path))
        equal = _table(killed) == _table(whole)
        twice = sum(_trained_after_its_end(log) for log in logs)
        found_finished = sum(log.count("is finished already") for log in logs)
        print(f"{given.runs} runs, {kills} jobs killed, {of_the_sweep} times the sweep, gone on with by --resume")
        print(f"exit status {statuses[-1]}; {len({row['run'] for row in _table(killed)})} runs in sweep.csv")
        print(f"{finished} finished folders, by {processes} processes; {found_finished} found nothing left")
        print(f"{twice} played again behind their end; the table is{'' if equal else ' not'} that of no kills")
        print(f"{took:.0f} s, {took_whole:.0f} s without kills")
        sound = statuses[-1] == status == 0 and equal and not twice
        return 0 if sound and finished == len(logs) == given.runs and kills > 0 else 1


def _started(spec: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lth_sparse.sweep", str(spec), "--out", str(out), "--retries", "1000", *options]
    with open(out.with_suffix(".said"), "ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


def _killed_at_random(spec: Path, out: Path, every: float, chance: random.Random) -> tuple[int, int, list[int]]:
    """How many jobs were killed, how often the sweep, and the exit statuses of that."""
    kills, of_the_sweep, statuses = 0, 0, list[int]()
    sweep = _started(spec, out)
    while sweep.poll() is None:
        time.sleep(every * chance.uniform(0.2, 1.8))
        if kills >= (of_the_sweep + 1) * KILLS_OF_JOBS_TO_ONE_OF_THE_SWEEP:
            sweep.kill()
            statuses.append(sweep.wait())
            of_the_sweep += 1
            sweep = _started(spec, out, "--resume")
        elif found := _running(out):
            try:
                os.kill(chance.choice(found), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
    return kills, of_the_sweep, [*statuses, sweep.returncode]


def _running(out: Path) -> list[int]:
    """The processes of jobs that have not said their end."""
    logs = [path.read_text() for path in (out / "job_logs").glob("*.log")]
    found = [re.findall(r"^process (\d+)", log, re.MULTILINE) for log in logs if not log.endswith("finished\n")]
    return [int(processes[-1]) for processes in found if processes and _is_a_job(int(processes[-1]))]


def _is_a_job(process: int) -> bool:
    """Whether it still runs, and is of the process that jobs are forks of."""
    try:
        return b"multiprocessing" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _is_finished(path: Path) -> bool:
    return (path / "report.html").exists() and not (path / "state").exists()


def _trained_after_its_end(log: str) -> bool:
    return "\nround " in log.partition("\nfinished\n")[2]


def _table(out: Path) -> list[dict[str, str]]:
    with open(out / "sweep.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "speedup"} for row in csv.DictReader(file)]


if __name__ == "__main__":
    sys.exit(main())
