"""`python -m lth_sparse.run --preset coursework`: the study that the project began with, corrected and emulated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import unescape
from pathlib import Path

import pytest

from lth_sparse import run
from lth_sparse.experiments import coursework
from lth_sparse.experiments.pace import Pace
from lth_sparse.report import coursework as report
from lth_sparse.settings import config
from lth_sparse.storage.files import slug
from lth_sparse.storage.summary import Estimate, Studied
from lth_sparse.system.errors import InputError
from tests.conftest import called_until_done, error_line, rows, table
from tests.experiments.conftest import Called

Study = Callable[..., tuple[int, str, str]]
SHORT = ("--dataset", "digits", "--model", "lenet-300-100", "--batch-size", 64, "--backend", "dense")


@pytest.fixture
def study(called: Called, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Calls the command line for a study of one sparsity in one split."""
    monkeypatch.setattr(coursework, "SPARSITIES", (0.5,))
    monkeypatch.setattr(coursework, "SPLITS", ((2, 15),))
    return partial(called, run.main, "--preset", "coursework", *SHORT)


def cells_of(page: str, heading: str) -> list[str]:
    """Of the line of a table with this heading."""
    (line,) = re.findall(rf'<tr><th scope="row">(?:<a [^>]*>)?{re.escape(heading)}.*?</tr>', page)
    return [unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", line)]


def test_every_run_is_played_with_and_without_the_mistakes_and_stands_beside_what_was_published(
    tmp_path: Path, study: Study
) -> None:
    out = tmp_path / "out"
    status, said, error = study("--iterations", 20, "--emulate-coursework", "--out", out)
    assert (status, said) == (0, f"4 of 4 runs; {out / 'coursework.csv'}, {out / 'report.html'}\n"), error
    found = {(row["way"], row["pruning"]): row for row in table(out / "coursework.csv")}
    assert list(found) == [(way, pruning) for way in ("corrected", "emulation") for pruning in ("LTH", "random")]
    page = (out / "report.html").read_text()
    for (way, pruning), row in found.items():
        folder = f"{pruning.lower()}-50-in-2-x-15-epochs" + ("-emulation" if way == "emulation" else "")
        dense, _, last = rows(out / folder / "seed-0")
        assert float(last["sparsity"]) == pytest.approx(0.5, abs=1e-3)
        assert (row["iterations"], last["iterations"]) == ("10", "10"), "half of 20"
        assert row["accuracy_dense"] == dense["accuracy_retrained"]
        for name in ("before_prune", "after_prune", "retrained", "validation"):
            assert row[f"accuracy_{name}"] == last[f"accuracy_{name}"]
        assert (row["published"], row["published_dense"]) == ({"LTH": "0.7183", "random": "0.713"}[pruning], "0.703")
        settings = json.loads((out / folder / "seed-0" / "config.json").read_text())["config"]
        assert settings["pruning"]["criterion"] == {"LTH": "magnitude", "random": "random"}[pruning]
        assert settings["pruning"]["rewind"] == {"corrected": "weights", "emulation": "aliased"}[way]
        assert settings["preset"] == "seed"
        assert f'href="{folder}/report.html"' in page
        for own in (out / folder / "report.html", out / folder / "seed-0" / "report.html"):
            assert ("Emulation of a missing rewind" in own.read_text()) == (way == "emulation")
    # They part after the first round: the dense network, and what the first pruning makes of it, are the same.
    corrected, emulated = (
        rows(out / f"lth-50-in-2-x-15-epochs{end}" / "seed-0", without_times=True) for end in ("", "-emulation")
    )
    assert corrected[0] == emulated[0]
    assert corrected[1]["accuracy_after_prune"] == emulated[1]["accuracy_after_prune"]
    assert corrected[1]["accuracy_retrained"] != emulated[1]["accuracy_retrained"]
    cells = cells_of(page, "50\N{NO-BREAK SPACE}%, 2 \N{MULTIPLICATION SIGN} 15, LTH")
    assert len(cells) == 1 + 4 + 4 + 1
    assert cells[5:9] == [
        f"{100 * float(found['emulation', 'LTH'][f'accuracy_{name}']):.1f}"
        for name in ("dense", "before_prune", "after_prune", "retrained")
    ]
    assert cells[-1] == "71.83"
    for sentence in ("is proved, for there is none", "Reduced: 20 steps stand for the 30 epochs", "4 of 4 runs"):
        assert sentence in page


def test_killed_again_and_again_it_ends_as_it_would_have_and_takes_the_emulation_later(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coursework, "SPLITS", ((1, 30),))
    given = ("--iterations", 20)
    assert study(*given, "--emulate-coursework", "--out", tmp_path / "whole")[0] == 0
    out = tmp_path / "killed"
    (status, _, error), kills = called_until_done(
        lambda: study(*given, "--resume", "--out", out), lambda store, written: written == 2
    )
    assert status == 0, error
    assert kills >= 2
    assert {row["way"] for row in table(out / "coursework.csv")} == {"corrected"}
    status, said, error = study("--resume", "--emulate-coursework", "--out", out)
    assert (status, said[:6]) == (0, "4 of 4"), error
    assert (out / "coursework.csv").read_bytes() == (tmp_path / "whole" / "coursework.csv").read_bytes()
    before = (out / "coursework.json").read_bytes()
    for changed, message in (
        (
            ("--iterations", 30),
            "--iterations 30: the study under --out .* has 20; --resume goes on with a study as it is",
        ),
        (("--seed", 1), "--seed 1: the study under --out .* has None"),
        (("--replicates", 0), "--replicates 0: the study under --out .* has 1, and keeps them"),
    ):
        status, _, error = study(*changed, "--resume", "--out", out)
        assert (status, bool(re.search(message, error_line(error)))) == (2, True), error
    status, _, error = study("--out", out)
    assert (status, "holds coursework.json; add --resume" in error_line(error)) == (2, True)
    assert (out / "coursework.json").read_bytes() == before
    (out / "coursework.json").write_bytes(before.replace(b'"seeds": 1', b'"seeds": "1"'))
    status, _, error = study("--resume", "--out", out)
    assert (status, "coursework.json.seeds is '1', expected int" in error_line(error)) == (2, True), error


def test_a_run_that_fails_is_named_and_the_others_are_played(tmp_path: Path, study: Study) -> None:
    given = ("--iterations", 40, "--learning-rate", "1e30", "--out", tmp_path / "out")
    status, said, error = study(*given)
    assert (status, said[:11]) == (2, "0 of 2 runs"), error
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 of 2 runs are over, 2 of them failed" in page
    assert "LTH, 50% in 2 x 15 epochs: training diverged" in page


def test_the_whole_study_is_fifty_runs_and_as_many_emulations() -> None:
    cells = coursework.cells(emulate=True)
    assert len(cells) == 2 * len(coursework.cells(emulate=False)) == 100
    assert len({slug(cell.name) for cell in cells}) == 100
    for cell in cells:
        built = config.build(cell.settings({}, None))
        pruning = built.pruning
        assert (built.preset, built.model, built.data.dataset) == ("seed", "network", "cifar10")
        assert (pruning.sparsity, pruning.rounds, built.training.epochs) == (cell.sparsity, cell.rounds, cell.epochs)
        assert pruning.controls == ()
    assert [replace(cells[0], rounds=r, epochs=e).steps(300) for r, e in coursework.SPLITS] == [300, 150, 100, 70, 60]


def test_a_budget_shortens_all_trainings_in_proportion_and_no_more_than_it_has_to() -> None:
    cells = coursework.cells(emulate=True)
    pace = Pace(step=0.01, test=0.5, validation=0.2, per_epoch=350, evaluate_every=100)

    def seconds(iterations: int) -> float:
        return 2 * sum(pace.seconds(cell.rounds, cell.steps(iterations)) for cell in cells)

    iterations, said = coursework.fitted(pace, cells, 2, 7200)
    assert iterations is not None
    assert seconds(iterations) <= 7200 < seconds(iterations + 30)
    assert said.startswith(f"Reduced: {iterations:,} steps stand for the 30 epochs")
    assert (
        f"{iterations / 350:.2g} epochs, to fit into --budget 2:00:00: a step of masked dense PyTorch takes 10 ms"
        in said
    )
    assert coursework.fitted(pace, cells, 2, seconds(30 * 350))[0] is None
    with pytest.raises(InputError, match=r"--budget 1:00: 100 lotteries of one step a training take .*; give more, or"):
        coursework.fitted(pace, cells, 2, 60)


def test_what_a_budget_rests_on_is_measured(tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coursework, "SPLITS", ((1, 1),))
    status, _, error = study("--budget", "1h", "--out", tmp_path / "out")
    assert status == 0, error
    assert re.search(r"Nothing is reduced: all fits into --budget 1:00:00 \(a step of .* takes [\d.]+ ms here", error)
    assert {row["iterations"] for row in table(tmp_path / "out" / "coursework.csv")} == {"20"}


def test_a_split_is_chosen_on_validation_images_and_in_the_emulation_on_the_test_images(tmp_path: Path) -> None:
    def row(rounds: int, emulated: bool, after: float, retrained: float, validation: float) -> Studied:
        dense, before, pruned, trained = (Estimate(value, None) for value in (0.7, 0.7, after, retrained))
        return Studied(
            0.1, rounds, 30 // rounds, 5, emulated, "LTH", "folder", dense, before, pruned, trained, validation, 0.7395
        )  # fmt: skip

    found = [
        row(1, False, 0.71, 0.72, 0.9), row(2, False, 0.73, 0.79, 0.8),
        row(1, True, 0.74, 0.81, 0.9), row(2, True, 0.76, 0.75, 0.8),
    ]  # fmt: skip
    report.write(tmp_path, found, [], 100, "network on cifar10", 0.703, "", "")
    cells = cells_of((tmp_path / "report.html").read_text(), "10\N{NO-BREAK SPACE}%</th>")
    dash, times = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
    assert cells == ["73.95", dash, f"76.0 (2 {times} 15)", dash, f"72.0 (1 {times} 30)", dash, f"70.0 (1 {times} 30)"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--rounds", 3), "--rounds: --preset coursework settles it"),
        (("--rewind", "aliased"), "--rewind: --preset coursework settles it"),
        (("--epochs", 3), "--epochs: .* its trainings are shortened by --iterations or --budget"),
        (("--tensorboard", "board"), "--tensorboard: --preset coursework settles it, or has no use for it"),
        (("--iterations", 9, "--budget", "9min"), "give --iterations or --budget, not both"),
        (("--budget", "9 days"), "expected a time such as 90s, 20min or 1.5h, given 9 days"),
        (("--budget", "0s"), "expected a time such as 90s, 20min or 1.5h, given 0s"),
        (("--replicates", 0), "--replicates 0: expected a whole number from 1 to"),
        (("--model", "lenet"), "model 'lenet' is not known"),
        (("--dataset", "folder", "--data-dir", "/nowhere"), "data folder /nowhere/train is missing"),
        (("--preset", "seed", "--budget", "9min"), "--budget: it belongs to --preset coursework; a run alone"),
        (("--preset", "seed", "--emulate-coursework"), "--emulate-coursework: it belongs to --preset coursework"),
    ],
)
def test_what_the_study_has_no_use_for_is_refused(
    tmp_path: Path, study: Study, given: tuple[object, ...], message: str
) -> None:
    status, _, error = study(*given, "--out", tmp_path / "out")
    assert status == 2
    assert re.search(message, error_line(error))
    assert not (tmp_path / "out").exists()
