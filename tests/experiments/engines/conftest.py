"""What the tests of engines share: a sweep of a network whose training a file beside it can hold up or kill."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from lth_sparse import sweep
from lth_sparse.experiments import sweep as experiment
from lth_sparse.experiments import sweep_file
from lth_sparse.experiments.engines.here import Here
from lth_sparse.lottery.playing import Request
from lth_sparse.report import plots
from tests.conftest import table
from tests.experiments.conftest import Called

NETWORK = """
import os
import signal
import time
from pathlib import Path

import torch

from lth_sparse import report

report.pictures = lambda info, record: []  # Nobody looks at them here, and they take most of the time.
HERE, AFTER = Path(__file__).parent, 40
steps = 0


class Network(torch.nn.Sequential):
    def forward(self, images):
        global steps
        steps += self.training
        if self.training and steps == AFTER:
            until = time.monotonic() + 60
            while (HERE / "wait").exists():
                assert time.monotonic() < until, "held up for too long"
                time.sleep(0.02)
            if (HERE / "kill").exists():
                (HERE / "kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


def network(input_shape, classes):
    found = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")]
    with open(HERE / "threads", "a") as file:
        print(*found, torch.get_num_threads(), file=file)
    size = torch.Size(input_shape).numel()
    return Network(torch.nn.Flatten(), torch.nn.Linear(size, 20), torch.nn.ReLU(), torch.nn.Linear(20, classes))
"""
SPEC = """
base: {dataset: digits, model: "held_network:network", rounds: 1, iterations: 60, backend: dense, controls: none}
runs:
  rewound: {}
  fine-tuned: {rewind: none}
"""
FOLDERS = ("rewound", "fine-tuned")


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the module `held_network`, where a file `wait` holds up a training, `kill` kills one, and `threads`
    has the environment of each process; and of `sweep.yaml`, two runs of it."""
    (tmp_path / "held_network.py").write_text(NETWORK)
    (tmp_path / "sweep.yaml").write_text(SPEC)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plots, "png", lambda figure: b"")
    yield tmp_path
    sys.modules.pop("held_network", None)
    (tmp_path / "wait").unlink(missing_ok=True)


@pytest.fixture
def swept(called: Called) -> Called:
    """Calls the command line."""
    return partial(called, sweep.main)


def results(out: Path) -> list[dict[str, str]]:
    """`sweep.csv`, but for times."""
    return [{name: value for name, value in row.items() if name != "speedup"} for row in table(out / "sweep.csv")]


_undisturbed: dict[str, list[dict[str, str]]] = {}


def undisturbed(held: Path) -> list[dict[str, str]]:
    """The same of `sweep.yaml`, played in this process, one run after the other; once for all tests."""
    spec, out = held / "sweep.yaml", held / "undisturbed"
    if (text := spec.read_text()) not in _undisturbed:
        experiment.play_all(Request({}, "", out), sweep_file.read(spec), lambda _: Here())
        _undisturbed[text] = results(out)
    return _undisturbed[text]


def processes(out: Path, folder: str) -> list[int]:
    """Those that the job of a run's seed 0 has had so far, one after the other."""
    path = out / "job_logs" / f"{folder}-seed-0.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith("process ")]


@contextmanager
def meanwhile(when: Callable[[], bool], what: Callable[[], object]) -> Iterator[None]:
    """Inside, `what` is called as soon as `when` holds, if it ever does."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if when():
                what()
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
