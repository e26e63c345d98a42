"""What the page is made of: the JSON files of bench/results/ and the folders of lottery runs in docs/results/."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from lth_sparse.storage.record import Round
from lth_sparse.storage.summary import Judged, StabilityRow, SummaryRow

_Row = TypeVar("_Row")
ROOT = Path(__file__).resolve().parents[2]
MEASURED, PAGE = Path("bench/results"), Path("docs/results")


@dataclass(frozen=True)
class Run:
    """A folder that `python -m lth_sparse.run` left: its `config.json`, its `rounds.csv`, the names of its plots.

    `about`: what a person has to say about it, `about.md`; no figure in it that can be worked out from the rest.
    """

    name: str
    info: dict[str, Any]
    rounds: list[Round]
    plots: list[str]
    about: str


@dataclass(frozen=True)
class Experiment:
    """A folder that `--replicates` or `python -m lth_sparse.transfer` left: its `replicates.json`, its `summary.csv`,
    its `instability-summary.csv` if it has one, the names of its plots, and `about.md` as of a run."""

    name: str
    info: dict[str, Any]
    rows: list[SummaryRow]
    stabilities: list[StabilityRow]
    plots: list[str]
    about: str


@dataclass(frozen=True)
class Tested:
    """A claim's folder that `python -m lth_sparse.reproduce` left: its rows of `scorecard.csv`, the `replicates.json`
    of each of its runs, and `about.md` as of a run."""

    name: str
    judged: list[Judged]
    runs: dict[str, dict[str, Any]]
    about: str


@dataclass(frozen=True)
class Sources:
    """`cpu`, `peers`, `engines`, `busy`, `gpu`, `lotteries`, `accuracies`, `scales`: the files that `pytest bench/`,
    busy.py, gpu/, lottery/, accuracy.py and scale/ wrote, by name.

    `coursework`: the rows of docs/results/coursework-digits/coursework.csv, which `--preset coursework` wrote.
    `throughput`: the lines of docs/results/training-throughput.txt.
    """

    cpu: dict[str, dict[str, Any]]
    peers: dict[str, dict[str, Any]]
    engines: dict[str, dict[str, Any]]
    busy: dict[str, dict[str, Any]]
    gpu: dict[str, dict[str, Any]]
    lotteries: dict[str, dict[str, Any]]
    accuracies: dict[str, dict[str, Any]]
    scales: dict[str, dict[str, Any]]
    runs: list[Run]
    experiments: list[Experiment]
    claims: list[Tested]
    coursework: list[dict[str, str]]
    throughput: list[str]


def read(root: Path = ROOT) -> Sources:
    """Everything that was measured and kept under `root`. Rehearsals, whose times mean nothing, are left out."""
    gpu = {name: found for name, found in _files(root, "gpu").items() if not found["rehearsal"]}
    lotteries = {name: found for name, found in _files(root, "lottery").items() if not found["rehearsal"]}
    runs = [_run(path.parent) for path in sorted((root / PAGE).glob("*/config.json"))]
    experiments = [_experiment(path.parent) for path in sorted((root / PAGE).glob("*/replicates.json"))]
    claims = [_tested(path.parent) for path in sorted((root / PAGE / "claims").glob("*/scorecard.csv"))]
    coursework = [
        row
        for path in sorted((root / PAGE).glob("*/coursework.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    throughput = (root / PAGE / "training-throughput.txt").read_text().splitlines()
    cpu, peers, engines, busy, accuracies, scales = (
        _files(root, kind) for kind in ("cpu", "peers", "engines", "busy", "accuracy", "scale")
    )
    return Sources(
        cpu, peers, engines, busy, gpu, lotteries, accuracies, scales, runs, experiments, claims, coursework, throughput
    )


def _files(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted((root / MEASURED).glob(f"{kind}-*.json"))}


def _run(folder: Path) -> Run:
    return Run(folder.name, _json(folder / "config.json"), _rows(folder / "rounds.csv", Round), *_beside(folder))


def _experiment(folder: Path) -> Experiment:
    rows = _rows(folder / "summary.csv", SummaryRow)
    pairs = folder / "instability-summary.csv"
    stabilities = _rows(pairs, StabilityRow) if pairs.exists() else []
    return Experiment(folder.name, _json(folder / "replicates.json"), rows, stabilities, *_beside(folder))


def _tested(folder: Path) -> Tested:
    runs = {path.parent.name: _json(path) for path in sorted(folder.glob("*/replicates.json"))}
    return Tested(folder.name, _rows(folder / "scorecard.csv", Judged), runs, (folder / "about.md").read_text().strip())


def _beside(folder: Path) -> tuple[list[str], str]:
    plots = sorted(path.name for path in (folder / "plots").glob("*.png"))
    return plots, (folder / "about.md").read_text().strip()


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _rows(path: Path, kind: type[_Row]) -> list[_Row]:
    with open(path, newline="") as file:
        return [_row(row, kind) for row in csv.DictReader(file)]


def _row(row: dict[str, str], kind: type[_Row]) -> _Row:
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for column in fields(cast(Any, kind)):
        text = row.get(column.name, "")  # Older runs have fewer controls.
        type_ = types[column.name]
        if type_ is str:
            values[column.name] = text
        else:
            values[column.name] = None if text == "" else type_(text) if type_ in (int, float) else float(text)
    return kind(**values)
