"""Memory formats on the command line: measured for every backend, kept, replayed, told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lth_sparse import run
from lth_sparse.report import words
from tests.commands.test_run import interrupted
from tests.conftest import rows

Lottery = Callable[..., tuple[int, str]]
# Two channels of the images would be enough for the formats to differ; digits have one, and the layers behind it more.
SHORT: tuple[object, ...] = ("--dataset", "digits", "--rounds", 2, "--iterations", 30, "--evaluate-every", 10)
DENSE, CPP = ("--backend", "dense"), ("--backend", "cpp")
CONTIGUOUS_FASTER, CHANNELS_LAST_FASTER = [1.0, 2.0], [2.0, 1.0]


def measuring(patch: pytest.MonkeyPatch, found: list[float]) -> None:
    """Trainings this short are worth measuring, and this is what is measured: contiguous, channels_last."""
    patch.setattr("lth_sparse.lottery.choosing.Chooser.__init__.__defaults__", (0,))
    patch.setattr("lth_sparse.lottery.formats.side_by_side", lambda steps, device, fewest, most: found)


def refuse(*_: object, **__: object) -> list[float]:
    raise AssertionError("this was to be replayed, not measured")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of dense in which NCHW was measured to be faster."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        measuring(patch, CONTIGUOUS_FASTER)
        assert run.main([str(argument) for argument in (*SHORT, *DENSE, "--out", out)]) == 0
    return out


def test_a_short_training_measures_nothing_and_keeps_no_choices(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lth_sparse.lottery.formats.side_by_side", refuse)
    status, error = lottery(*SHORT, *DENSE, "--out", tmp_path / "run")
    assert status == 0, error
    assert not (tmp_path / "run" / "choices.json").exists()


def test_a_run_of_dense_keeps_and_tells_its_format(first: Path) -> None:
    choices = json.loads((first / "choices.json").read_text())
    assert not choices["layers"]
    assert not choices["steps"]
    (entry,) = choices["formats"]
    assert (entry["backend"], entry["memory_format"], entry["live"]) == ("dense", "contiguous", [])
    record = json.loads((first / "record.json").read_text())["record"]
    assert [(row["round"], row["memory_format"]) for row in record["chosen"]] == [(n, "contiguous") for n in range(3)]
    page = (first / "report.html").read_text().replace(words.NO_BREAK, " ")
    told = "masked dense PyTorch trains it, contiguous: dense contiguous 1.00 (channels_last 2.00) ms"
    assert page.count(told) == 3


def test_the_format_decides_the_bits(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what is below can fail at all."""
    measuring(monkeypatch, CHANNELS_LAST_FASTER)
    status, error = lottery(*SHORT, *DENSE, "--out", tmp_path / "run")
    assert status == 0, error
    assert (tmp_path / "run" / "curves.csv").read_bytes() != (first / "curves.csv").read_bytes()


def test_given_its_choices_a_run_of_dense_is_repeated_bit_for_bit(
    first: Path, tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, CHANNELS_LAST_FASTER)
    monkeypatch.setattr("lth_sparse.lottery.formats.side_by_side", refuse)
    status, error = lottery(*SHORT, *DENSE, "--choices", first / "choices.json", "--out", tmp_path / "again")
    assert status == 0, error
    assert rows(tmp_path / "again", without_times=True) == rows(first, without_times=True)
    for name in ("curves.csv", "choices.json"):
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes()


@pytest.mark.parametrize("after", [1, 3, 5])
@pytest.mark.parametrize("backend", [DENSE, CPP], ids=str)
def test_resumed_it_goes_on_in_the_format_that_it_began_in(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, after: int, backend: tuple[str, str]
) -> None:
    """Killed in round 0, in the middle of round 1 and in the training of its random mask."""
    measuring(monkeypatch, CONTIGUOUS_FASTER)
    given = (*SHORT, *backend)
    status, error = lottery(*given, "--out", tmp_path / "whole")
    assert status == 0, error
    interrupted(tmp_path / "run", lottery, monkeypatch, after, given)
    measuring(monkeypatch, CHANNELS_LAST_FASTER)
    if after > 2:  # In round 0 dense alone was measured, and for cpp the next rounds are still to be.
        (tmp_path / "run" / "choices.json").write_bytes((tmp_path / "whole" / "choices.json").read_bytes())
    status, error = lottery("--out", tmp_path / "run", "--resume")
    assert status == 0, error
    assert rows(tmp_path / "run", without_times=True)[0] == rows(tmp_path / "whole", without_times=True)[0]
    if after > 2 or backend == DENSE:
        assert (tmp_path / "run" / "curves.csv").read_bytes() == (tmp_path / "whole" / "curves.csv").read_bytes()


def test_controls_train_in_the_format_of_their_ticket_and_measure_nothing(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, CONTIGUOUS_FASTER)
    asked: list[int] = []

    def side_by_side(steps: list[object], device: object, fewest: int, most: int) -> list[float]:
        asked.append(len(steps))
        return [1.0, 1.05]

    monkeypatch.setattr("lth_sparse.lottery.formats.side_by_side", side_by_side)
    status, error = lottery(*SHORT, *CPP, "--controls", "random", "--out", tmp_path / "run")
    assert status == 0, error
    assert asked == [2] * 4, "dense once, and cpp once a round, whose race is too close to be taken over"
    formats = json.loads((tmp_path / "run" / "choices.json").read_text())["formats"]
    assert sorted(entry["backend"] for entry in formats) == ["cpp", "cpp", "cpp", "dense"]
