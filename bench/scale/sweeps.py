"""What a sweep of many runs costs beside their training: files, seconds to begin and to end, tables and pages."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lth_sparse as lth
from lth_sparse.experiments import replicates
from lth_sparse.lottery.playing import Request
from lth_sparse.report import sweep as report
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.record import table_of
from lth_sparse.storage.summary import SummaryRow, Swept

RUNS = 10_000
ROUNDS, RATE = 20, 0.2
"""Of a lottery on ResNet-50, whose tickets are worked out; its densities are 0.8 to the power of the round."""
TINY: dict[str, Any] = {
    "dataset": "digits", "model": "lenet-300-100", "rounds": 3, "iterations": 4, "evaluate_every": 4,
    "backend": "dense",
}  # fmt: skip
"""A run that is next to nothing but its beginning and its end."""


def ticket_bytes(weights: int, density: float, others: int) -> float:
    """A bit for each weight, 4 bytes for each that lives, 4 for each of the `others`: biases and norms."""
    return weights / 8 + 4 * weights * density + 4 * others


def lottery_bytes(weights: int, others: int) -> float:
    """All tickets of a lottery of `ROUNDS` rounds."""
    return sum(ticket_bytes(weights, (1 - RATE) ** number, others) for number in range(ROUNDS + 1))


def processes() -> dict[str, float]:
    """Seconds of whole processes: Python that imports PyTorch, that imports ours, that plays `TINY`."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()] + ["--controls=none"]
    commands = {
        "import torch": ["-c", "import torch"],
        "import lth_sparse.run": ["-c", "import lth_sparse.run"],
        "a tiny run": ["-m", "lth_sparse.run", *options],
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.items():
            given = [*command, "--out", str(Path(folder) / "run")] if name == "a tiny run" else command
            found[name] = _seconds(lambda given=given: _run(given))
    return found


def tiny_runs() -> dict[str, Any]:
    """Of `TINY`, played here as a job of a sweep plays it: seconds of a run after the first, and to go over it once
    it is finished, as --resume does; its files and bytes, by kind; and the bytes of its tickets by `ticket_bytes`."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(open(os.devnull, "w")):
        given = TINY | {"controls": ()}
        requests = [Request(given, "python -m bench.scale", Path(folder) / name) for name in ("first", "second")]
        _, seconds = (_seconds(lambda request=request: replicates.play_all(request, 1)) for request in requests)
        out = requests[1].out
        again = Request(given, requests[1].command, out, resume=True)
        resumed = _seconds(lambda: replicates.play_all(again, 1))
        files = [path for path in out.rglob("*") if path.is_file()]
        kinds: dict[str, int] = {}
        for path in files:
            kinds[path.suffix] = kinds.get(path.suffix, 0) + path.stat().st_size
        tickets = {path: lth.read_ticket(path) for path in files if path.suffix == ".safetensors"}
        expected = 0.0
        for ticket in tickets.values():
            weights = sum(mask.numel() for mask in ticket.masks.values())
            live = sum(int(mask.sum()) for mask in ticket.masks.values())
            others = sum(each.numel() for each in ticket.weights.values()) - weights
            expected += ticket_bytes(weights, live / weights, others)
        return {
            "seconds": seconds, "resumed_seconds": resumed, "files": len(files), "bytes": sum(kinds.values()),
            "kinds": kinds, "tickets": sum(path.stat().st_size for path in tickets), "tickets_by_formula": expected,
        }  # fmt: skip


def overview_seconds(runs: int) -> dict[str, float]:
    """What the table and the page of a sweep of so many runs take to be written, once."""
    done = [_finished(number) for number in range(runs)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rows = [{**asdict(row), "run": each.name} for each in done for row in each.rows]
        return {
            "table": _seconds(lambda: (out / "sweep.csv").write_bytes(table_of(rows).encode())),
            "page": _seconds(lambda: report.write(out, done, RUNS, "python -m lth_sparse.sweep sweep.yaml")),
        }


def _finished(number: int) -> Swept:
    rows = [
        SummaryRow(round, TICKET.name, 3, (1 - RATE) ** round, 0.9 - 0.001 * (number % 50), 0.01, -0.001, 0.01,
                   "matching dense", 1.5)
        for round in range(ROUNDS + 1)
    ]  # fmt: skip
    return Swept(f"run {number}", f"run-{number}", rows, "")


def _run(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    """Of a processor, in this process and in those that it waited for: a busy machine changes them little."""
    began = os.times()
    work()
    ended = os.times()
    return sum(ended[:4]) - sum(began[:4])
