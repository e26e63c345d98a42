"""What the page is made of: the JSON files of bench/results/ and the folders of lottery runs in docs/results/."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from lth_sparse.storage.record import Round

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
class Sources:
    """`cpu`, `peers`, `busy`, `gpu`, `lotteries`, `accuracies`: the files that `pytest bench/`, busy.py, gpu/, lottery/
    and accuracy.py wrote, by name.

    `throughput`: the lines of docs/results/training-throughput.txt.
    """

    cpu: dict[str, dict[str, Any]]
    peers: dict[str, dict[str, Any]]
    busy: dict[str, dict[str, Any]]
    gpu: dict[str, dict[str, Any]]
    lotteries: dict[str, dict[str, Any]]
    accuracies: dict[str, dict[str, Any]]
    runs: list[Run]
    throughput: list[str]


def read(root: Path = ROOT) -> Sources:
    """Everything that was measured and kept under `root`. Rehearsals, whose times mean nothing, are left out."""
    gpu = {name: found for name, found in _files(root, "gpu").items() if not found["rehearsal"]}
    lotteries = {name: found for name, found in _files(root, "lottery").items() if not found["rehearsal"]}
    runs = [_run(path.parent) for path in sorted((root / PAGE).glob("*/config.json"))]
    throughput = (root / PAGE / "training-throughput.txt").read_text().splitlines()
    cpu, peers, busy, accuracies = (_files(root, kind) for kind in ("cpu", "peers", "busy", "accuracy"))
    return Sources(cpu, peers, busy, gpu, lotteries, accuracies, runs, throughput)


def _files(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted((root / MEASURED).glob(f"{kind}-*.json"))}


def _run(folder: Path) -> Run:
    with open(folder / "rounds.csv", newline="") as file:
        rounds = [_round(row) for row in csv.DictReader(file)]
    plots = sorted(path.name for path in (folder / "plots").glob("*.png"))
    about = (folder / "about.md").read_text().strip()
    return Run(folder.name, json.loads((folder / "config.json").read_text()), rounds, plots, about)


def _round(row: dict[str, str]) -> Round:
    kinds = get_type_hints(Round)
    values: dict[str, Any] = {}
    for column in fields(Round):
        text = row.get(column.name, "")  # Older runs have fewer controls.
        kind = kinds[column.name]
        values[column.name] = None if text == "" else kind(text) if kind in (int, float, str) else float(text)
    return Round(**values)
