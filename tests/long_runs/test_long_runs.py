"""The short form of `make long-runs`, in a process of its own, and what says that a long one would have failed."""

import subprocess
import sys

import pytest

from lth_sparse.backends import registry
from lth_sparse.inference import engine
from tests import memory
from tests.long_runs import __main__ as command
from tests.long_runs.training import BACKENDS, OPTIMIZERS

pytestmark = [
    pytest.mark.skipif(
        bool(registry.backends()["cpp"]), reason=f"cpp cannot be used here: {registry.backends()['cpp']}"
    ),
    pytest.mark.skipif(not memory.STATUS.exists(), reason="there is no /proc/self/status to read"),
]


def test_memory_is_flat_over_a_thousand_steps_in_all_and_ten_repackings_in_each_training():
    short = [sys.executable, "-m", "tests.long_runs", "--steps", "250", "--repackings", "10", "--calls", "480"]
    done = subprocess.run(short, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(BACKENDS) * len(OPTIMIZERS) + (not engine.refuses())


def test_what_grows_is_told(monkeypatch, capsys):
    samples = {"SGD": [100, 101, 101.9, 101], "Adam": [100, 101, 103, 101]}
    monkeypatch.setattr(command, "resident_while", lambda backend, optimizer, *_: iter(samples[optimizer]))
    monkeypatch.setattr(command.inference, "resident_while", lambda *_: iter([50, 50, 52, 52]))
    assert command.main([]) == 1
    of_inference = [] if engine.refuses() else [True]
    missed = [line.endswith("MISSED") for line in capsys.readouterr().out.splitlines()[1:]]
    assert missed == [False, True] * 2 + of_inference
    with pytest.raises(SystemExit):
        command.main(["--repackings", "4"])
