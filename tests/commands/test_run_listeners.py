"""Who is told what happens in a run: a function of the user's own, and TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

import lth_sparse as lth
from tests.conftest import error_line, rows, table

Lottery = Callable[..., tuple[int, str]]

MODULE = """
events = []

def log(event):
    events.append(event)

def fail(event):
    if type(event).__name__ == "EvaluationEvent" and event.round == 1:
        raise RuntimeError("no network")

def none():
    pass

def two(event, other):
    pass
"""
SHORT: tuple[object, ...] = (
    "--dataset", "digits", "--rounds", 1, "--iterations", 30, "--evaluate-every", 12, "--backend", "dense",
)  # fmt: skip
STEPS = 30 * 3
"""Of round 0, and of the two arms of round 1."""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_log.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_log", raising=False)


def curves(out: Path) -> list[dict[str, str]]:
    return table(out / "curves.csv")


def test_a_callback_is_told_of_each_step_evaluation_and_round(lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--out", "run", "--callback", "own_log:log")
    assert status == 0, error
    events = sys.modules["own_log"].events
    steps = [event for event in events if isinstance(event, lth.StepEvent)]
    assert [(event.round, event.arm, event.iteration) for event in steps] == [
        (round, arm, iteration)
        for round, arm in ((0, "ticket"), (1, "ticket"), (1, "random"))
        for iteration in range(1, 31)
    ]
    assert all(event.total == 30 and event.images_per_second > 0 for event in steps)
    evaluations = [asdict(event) for event in events if isinstance(event, lth.EvaluationEvent)]
    written = curves(Path("run"))
    assert [{name: str(event[name]) for name in written[0]} for event in evaluations] == written
    told = [event for event in events if isinstance(event, lth.RoundEvent)]
    written = rows(Path("run"))
    for event, row in zip(told, written, strict=True):
        assert {name: "" if value is None else str(value) for name, value in asdict(event.row).items()} == row
        assert event.images_per_second > 0
    assert len(events) == STEPS + len(evaluations) + len(written)


def test_listening_changes_nothing(lottery: Lottery) -> None:
    assert lottery(*SHORT, "--out", "told", "--callback", "own_log:log", "--tensorboard", "board")[0] == 0
    assert lottery(*SHORT, "--out", "alone")[0] == 0
    assert rows(Path("told"), without_times=True) == rows(Path("alone"), without_times=True)


def test_a_callback_that_raises_stops_the_run_in_a_line_and_the_run_goes_on_without_it(lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--out", "run", "--callback", "own_log:fail")
    assert status == 2
    assert (
        "--callback own_log:fail: called with a EvaluationEvent it raised RuntimeError: no network; mend it, and "
        "--resume goes on from the last saved epoch"
    ) in error.splitlines()[-1]
    status, error = lottery(*SHORT, "--out", "run", "--resume")
    assert status == 0, error
    assert lottery(*SHORT, "--out", "whole")[0] == 0
    assert rows(Path("run"), without_times=True) == rows(Path("whole"), without_times=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--callback", "own_log:logg"), "--callback own_log:logg: 'own_log' has no function 'logg', did you mean"),
        (("--callback", "own_log"), "--callback own_log: expected module:function"),
        (("--callback", "own_log:none"), "expected a function that is called with one event (too many positional"),
        (("--callback", "own_log:two"), "expected a function that is called with one event (missing a required"),
        (("--tensorboard", "own_log.py"), "--tensorboard own_log.py is a file; give a directory"),
    ],
)
def test_what_cannot_listen_is_told_before_anything_is_written(
    lottery: Lottery, options: tuple[str, str], message: str
) -> None:
    status, error = lottery(*SHORT, *options)
    assert status == 2
    assert message in error_line(error)
    assert {path.name for path in Path.cwd().iterdir()} <= {"own_log.py", "__pycache__"}


def test_tensorboards_own_reader_finds_what_the_tables_have(lottery: Lottery) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, error = lottery(*SHORT, "--out", "run", "--tensorboard", "board")
    assert status == 0, error

    def read(name: str) -> dict[str, dict[int, float]]:
        accumulator = EventAccumulator(str(Path("board", name)))
        accumulator.Reload()
        tags = accumulator.Tags()["scalars"]
        return {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in tags}

    assert {path.name for path in Path("board").iterdir()} == {
        "rounds", "round-00-ticket", "round-01-ticket", "round-01-random",
    }  # fmt: skip
    for name in ("round-00-ticket", "round-01-ticket", "round-01-random"):
        found = read(name)
        _, number, arm = name.split("-")
        written = [row for row in curves(Path("run")) if int(row["round"]) == int(number) and row["arm"] == arm]
        assert {*found} == {"train_loss", "validation_loss", "validation_accuracy", "images_per_second"}
        assert [int(row["iteration"]) for row in written] == [12, 24, 30]
        for tag in ("train_loss", "validation_loss", "validation_accuracy"):
            assert found[tag] == pytest.approx({int(row["iteration"]): float(row[tag]) for row in written})
        assert min(found["images_per_second"].values()) > 0
    found = read("rounds")
    written = rows(Path("run"))
    assert {"density", "accuracy_retrained", "accuracy_random", "train_loss", "speedup", "images_per_second"} <= {
        *found
    }
    assert {"round", "dataset"}.isdisjoint(found)
    for tag in found.keys() - {"images_per_second"}:
        assert found[tag] == pytest.approx({int(row["round"]): float(row[tag]) for row in written if row[tag]})


def test_without_tensorboard_a_sentence_says_how_to_get_it(lottery: Lottery, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    status, error = lottery(*SHORT, "--tensorboard", "board")
    assert status == 2
    assert "--tensorboard needs the package tensorboard, which is not installed: pip install" in error_line(error)
    assert not Path("board").exists()
