"""The measurement beside a busy process: what keeps the core busy, and what the file holds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from bench import busy
from bench.suite import results_file
from bench.timing.busy_core import CORE, busy_core
from bench.timing.row import Row

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processes are bound to cores on Linux alone"
)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_process_spins_on_the_core_and_is_gone_afterwards() -> None:
    with busy_core() as process:
        deadline = time.monotonic() + 30
        while cpu_seconds(process.pid) < 0.2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert cpu_seconds(process.pid) >= 0.2
        assert os.sched_getaffinity(process.pid) == {CORE}
    assert process.returncode is not None


def test_every_case_is_measured_quiet_and_busy_and_written_a_row_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, seconds: float) -> Row:
        return Row(name, 0.9, "cpp at 90%, contiguous", "dense, contiguous", 4.5, 4.25, (4.0, 5.0))

    monkeypatch.setattr(busy, "measure", measure)
    rows = busy.measured(["c64", "c256"], repeats=2, seconds=0.0)
    assert [(row["repeat"], row["case"], row["busy"]) for row in rows] == [
        (repeat, case, is_busy) for repeat in (0, 1) for case in ("c64", "c256") for is_busy in (False, True)
    ]
    assert "c64    90%  core 0 busy   4.25 (4.00 to 5.00) by medians,  4.50 by minima" in capsys.readouterr().out
    here = {"processor": "Some Processor", "processor_family": "Vendor family 1 model 2", "threads": 3, "device": "cpu"}
    path = results_file.write("busy", tmp_path, here, "a command", {"rows": rows})
    assert path.name == "busy-some-processor-family-1-model-2-threads-3.json"
    assert len(json.loads(path.read_text())["rows"]) == len(rows)
