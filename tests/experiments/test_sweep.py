"""`python -m lth_sparse.sweep SPEC`: many runs that a file lists, one table and one page over all."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lth_sparse import sweep
from lth_sparse.experiments import sweep_file
from lth_sparse.experiments.engines import choosing
from lth_sparse.experiments.engines.here import Here
from lth_sparse.lottery.playing import Request
from lth_sparse.system.errors import InputError
from tests.conftest import Killed, error_line, killed_when, rows, table
from tests.experiments.conftest import Called

Sweep = Called
BASE = (
    "{dataset: digits, model: lenet-300-100, rounds: 1, iterations: 10, evaluate_every: 10, backend: dense, "
    "controls: none}"
)
SPEC = f"""
seeds: 2
base: {BASE}
runs:
  rewound: {{}}
  fine-tuned: {{rewind: none}}
grid:
  criterion: [magnitude, random]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def swept(called: Called, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Calls the command line, which plays one run after the other in this process: engines/ is about the others."""
    monkeypatch.setattr(choosing, "engine", lambda *_: Here())
    return partial(called, sweep.main)


NAMES = [f"{run}, criterion {criterion}" for run in ("rewound", "fine-tuned") for criterion in ("magnitude", "random")]


def test_every_run_is_played_with_every_combination_of_the_grid(
    tmp_path: Path, written: Callable[[str], Path], swept: Sweep
) -> None:
    out = tmp_path / "out"
    status, said, error = swept(written(SPEC), "--out", out)
    assert status == 0, error
    assert said == f"4 of 4 runs; {out / 'sweep.csv'}, {out / 'report.html'}\n"
    found = table(out / "sweep.csv")
    assert list(dict.fromkeys(row["run"] for row in found)) == NAMES
    assert {row["seeds"] for row in found} == {"2"}
    page = (out / "report.html").read_text()
    for name, (rewind, criterion) in zip(
        NAMES, [("weights", "magnitude"), ("weights", "random"), ("none", "magnitude"), ("none", "random")], strict=True
    ):
        folder = name.replace(", ", "-").replace(" ", "-")
        assert f'<a href="{folder}/report.html">{name}</a>' in page
        for seed in (0, 1):
            pruning = json.loads((out / folder / f"seed-{seed}" / "config.json").read_text())["config"]["pruning"]
            assert (pruning["rewind"], pruning["criterion"], pruning["rounds"]) == (rewind, criterion, 1)
        mean = sum(float(rows(out / folder / f"seed-{seed}")[1]["accuracy_retrained"]) for seed in (0, 1)) / 2
        (row,) = [row for row in found if (row["run"], row["round"]) == (name, "1")]
        assert float(row["accuracy"]) == pytest.approx(mean)
    assert "4 of 4 runs are over" in page
    assert (out / "plots" / "accuracy.png").is_file()


def test_a_run_that_fails_does_not_end_the_others(tmp_path: Path, written: Callable[[str], Path], swept: Sweep) -> None:
    spec = f"base: {BASE}\nruns:\n  diverging: {{optimizer: sgd, learning_rate: 1e30}}\n  sound: {{}}\n"
    status, said, error = swept(written(spec), "--out", tmp_path / "out")
    assert status == 2
    assert said.startswith("1 of 2 runs; ")
    assert "diverging failed: training diverged" in error
    assert {row["run"] for row in table(tmp_path / "out" / "sweep.csv")} == {"sound"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 of 2 runs are over, 1 of them failed" in page
    assert "failed: training diverged" in page


def test_killed_it_goes_on_and_takes_runs_that_the_file_has_more(
    tmp_path: Path, written: Callable[[str], Path], swept: Sweep
) -> None:
    spec, out = SPEC.replace("grid:\n  criterion: [magnitude, random]\n", ""), tmp_path / "out"
    # The third state is in the first run's second seed.
    with killed_when(lambda store, written: written == 3), pytest.raises(Killed):
        swept(written(spec), "--out", out)
    more = spec + "  erk: {criterion: erk}\n"
    assert swept(written(more), "--out", out, "--resume")[0] == 0
    assert swept(written(more), "--out", tmp_path / "whole")[0] == 0
    kept = [{name: value for name, value in row.items() if name != "speedup"} for row in table(out / "sweep.csv")]
    assert kept == [
        {name: value for name, value in row.items() if name != "speedup"}
        for row in table(tmp_path / "whole" / "sweep.csv")
    ]
    assert {row["run"] for row in kept} == {"rewound", "fine-tuned", "erk"}
    # What is whole is read, not made again.
    (page := out / "erk" / "report.html").write_text("as it was")
    assert swept(written(more), "--out", out, "--resume")[0] == 0
    assert page.read_text() == "as it was"
    before = (out / "sweep.csv").read_bytes()
    status, _, error = swept(written(more), "--out", out)
    assert (status, "holds sweep.json; add --resume" in error_line(error)) == (2, True)
    status, _, error = swept(written(more.replace("criterion: erk", "criterion: random")), "--out", out, "--resume")
    assert (status, "the settings of 'erk' were" in error_line(error)) == (2, True)
    assert (out / "sweep.csv").read_bytes() == before


def test_neither_does_one_that_fails_as_nobody_expected(
    tmp_path: Path, written: Callable[[str], Path], swept: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lth_sparse.experiments import replicates

    play_seed = replicates.play_seed

    def failing(asked: Request) -> object:
        if asked.file["rewind"] == "none":
            raise ZeroDivisionError("a mistake")
        return play_seed(asked)

    monkeypatch.setattr(replicates, "play_seed", failing)
    spec = SPEC.replace("grid:\n  criterion: [magnitude, random]\n", "").replace("seeds: 2", "seeds: 1")
    status, said, error = swept(written(spec), "--out", tmp_path / "out")
    assert (status, said.startswith("1 of 2 runs; ")) == (2, True)
    assert "fine-tuned failed: ZeroDivisionError: a mistake" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 3\n", "line 1: there is no key 'seed', did you mean \"seeds\""),
        ("seeds: many\n", "line 1: seeds is 'many', expected a whole number"),
        ("seeds: 0\n", "line 1: seeds is 0, expected a whole number from 1 to 1000"),
        ("runs:\n  one:\n    epoch: 3\n", "line 3: there is no setting 'epoch', did you mean \"epochs\""),
        ("base:\n  rounds: three\n", 'line 2: rounds is "three", expected a whole number'),
        ("runs:\n  one: {rounds: 1}\n  two:\n    rounds: x\n", 'line 4: rounds is "x", expected a whole number'),
        ("grid:\n  rounds: 3\n", "line 2: rounds is 3, expected a list of values"),
        ("grid:\n  rounds: [1, two]\n", 'line 2: rounds is "two", expected a whole number'),
        ("runs:\n  one: {}\n  one: {}\n", "line 3: one is given twice"),
        ("runs:\n  one: {}\n  'one!': {}\n", "line 1: 'one' makes the folder 'one', expected one of its own"),
        ("runs:\n  one: {criterion: erk, controls: [random]}\n", "line 2: one: controls: random beside a criterion"),
        ("runs:\n  a: {}\n  b: {criterion: snipp}\n", "line 3: b: --criterion snipp: expected one of"),
        ("runs:\n  a: {model: lenet-300-10}\n", "line 2: a: model 'lenet-300-10' is not known"),
        ("runs:\n  a: {dataset: digitz}\n", "line 2: a: --dataset digitz: expected one of"),
        ("runs:\n  a: {backend: cqp}\n", "line 2: a: "),
        ("seeds: 1001\n", "line 1: seeds is 1001, expected a whole number from 1 to 1000"),
        ("runs: &a {x: *a}\n", "holds itself"),
        ("grid: {rounds: &a [1, *a]}\n", "holds itself"),
        ("runs: " + 3000 * "[" + "\n", "nested too deeply"),
        ("runs: [\n", "line 2: "),
        ("- 1\n", "a sweep is [1], expected names with values"),
        ("", "a sweep is None, expected names with values"),
        ("runs: 3\n", "line 1: runs is 3, expected names with values"),
        ("runs:\n  one: 3\n", "line 2: got 3, expected settings"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    tmp_path: Path, written: Callable[[str], Path], swept: Sweep, text: str, message: str
) -> None:
    path = written(text)
    status, _, error = swept(path, "--out", tmp_path / "out")
    assert status == 2
    assert message in error_line(error)
    assert str(path) in error
    assert not (tmp_path / "out").exists()


def test_a_grid_alone_is_a_sweep(written: Callable[[str], Path]) -> None:
    found = sweep_file.read(written("grid: {rounds: [1, 2], scope: [global, layerwise]}\n"))
    assert list(found.runs) == [
        f"run, rounds {rounds}, scope {scope}" for rounds in (1, 2) for scope in ("global", "layerwise")
    ]
    assert found.seeds == 1
    with pytest.raises(InputError, match="No such file"):
        sweep_file.read(Path("/nowhere/sweep.yaml"))
