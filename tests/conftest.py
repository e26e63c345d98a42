"""What several tests share: tiny image folders, tiny data sets, and the command line called in this process."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from PIL import Image

# Without a GPU the Triton kernels run in Triton's interpreter, which has to be settled before they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from lth_sparse import report, run
from lth_sparse.data import installed
from lth_sparse.data.dataset import Dataset, Split, statistics
from lth_sparse.lottery import saving
from lth_sparse.storage.record import TIME_COLUMNS
from lth_sparse.storage.run_directory import RunDirectory

_Given = TypeVar("_Given")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """train/ and test/ with two classes that brightness tells apart, 12x12 pixels, 30 and 10 images each."""
    root = tmp_path / "images"
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 30), ("test", 10)):
        for label, brightness in (("dark", 40), ("light", 200)):
            directory = root / part / label
            directory.mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(-40, 40, (12, 12, 3), generator=generator)
                pixels = (noise + brightness).clamp(0, 255).to(torch.uint8).numpy()
                Image.fromarray(pixels).save(directory / f"{number:04}.png")
    return root


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every attempt to fetch fails at once, as on a machine without a network and without data of its own."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("this test has no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(installed, "FOLDER", tmp_path / "not installed")


@pytest.fixture
def tiny_data() -> Dataset:
    """Two classes of 8x8 images, 64 / 16 / 16."""
    generator = torch.Generator().manual_seed(1)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 2
        images = torch.randint(0, 156, (count, 1, 8, 8), generator=generator) + 100 * labels[:, None, None, None]
        return Split(images.to(torch.uint8), labels)

    train = split(64)
    return Dataset("tiny", "", ("zero", "one"), train, split(16), split(16), *statistics(train.images))


@pytest.fixture
def lottery(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Calls the command line; gives its exit status and what it wrote to standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        status = run.main([str(argument) for argument in arguments])
        return status, capsys.readouterr().err

    return call


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that play many lotteries and look at no plot of theirs, which take most of a tiny one's time."""
    monkeypatch.setattr(report, "pictures", lambda info, record: [])


class Killed(BaseException):
    """Stands for a kill: nothing in the program may catch it."""


@contextmanager
def killed_when(when: Callable[[RunDirectory, int], bool] = lambda store, written: True) -> Iterator[None]:
    """Inside, a run writes a state after each epoch, and is killed right after the first one of which `when(its
    directory, how many were written here)` holds."""
    write_state, written = RunDirectory.write_state, 0

    def write_and_die(self: RunDirectory, *state: Any) -> None:
        nonlocal written
        write_state(self, *state)
        written += 1
        if when(self, written):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "write_state", write_and_die)
        patch.setattr(saving, "LARGEST_SHARE", math.inf)
        yield


def called_until_done(
    call: Callable[[], _Given], when: Callable[[RunDirectory, int], bool] = lambda store, written: True
) -> tuple[_Given, int]:
    """What `call` gives in the end, and how often it was killed before."""
    kills = 0
    while True:
        try:
            with killed_when(when):
                return call(), kills
        except Killed:
            kills += 1


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def rows(out: Path, without_times: bool = False) -> list[dict[str, str]]:
    """`rounds.csv` of the run under `out`; without the columns that no two runs share, if wanted."""
    found = table(out / "rounds.csv")
    dropped = TIME_COLUMNS if without_times else ()
    return [{name: value for name, value in row.items() if name not in dropped} for row in found]


def error_line(error: str) -> str:
    """The one line on standard error that a refused command leaves."""
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]
