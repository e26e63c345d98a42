"""A lottery over several processes, started by torchrun, which costs seconds: two starts serve all tests."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lth_sparse import report, run
from tests.commands.several_processes import norm_and_images, normalised
from tests.conftest import rows

ROOT = Path(__file__).parents[2]
NETWORKS = """
import os, signal
from torch import nn
from lth_sparse.lottery import held_masks

rank, restarts = os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")

def small(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, num_classes))

def norm(num_classes):
    # Without biases that a norm takes away: Adam would make steps of their rounding.
    layers = [nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Linear(6 * 16, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, num_classes))

class Ends(nn.Module):
    # In the second process, in the middle of a training.
    def __init__(self, num_classes, how):
        super().__init__()
        self.network, self.how, self.steps = small(num_classes), how, 0

    def forward(self, x):
        self.steps += self.training
        if rank == "1" and restarts == "0" and self.steps == 21:
            self.how()
        return self.network(x)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def raises():
    raise RuntimeError("no more of this")

def is_killed(num_classes):
    return Ends(num_classes, killed if os.environ.get("KILL") else lambda: None)

def fails(num_classes):
    return Ends(num_classes, raises)

def other_masks(num_classes):
    take = held_masks.HeldMasks.take

    def turned(self, masks):
        if rank == "1" and not all(mask.all() for mask in masks.values()):
            masks = {name: mask.flip(0) for name, mask in masks.items()}
        take(self, masks)

    held_masks.HeldMasks.take = turned
    return small(num_classes)
"""
SHORT = ["--dataset", "digits", "--rounds", "1", "--iterations", "28", "--evaluate-every", "7", "--sparsity", "0.8"]
SHORT += ["--batch-size", "101", "--controls", "none", "--backend", "cpp"]
"""An epoch has 12 steps; the parts of a batch are of 50 and 51 images."""
RUNS = {
    "small": ["--controls", "random,reinit", "--instability", "0", "--augmentation", "crop-flip"],
    "norm": ["--model", "own_networks:norm"],
    "local": ["--model", "own_networks:norm", "--batch-norm", "local"],
    "rigl": ["--model", "own_networks:norm", "--dynamic", "rigl", "--update-every", "5", "--backend", "auto"],
    "dense": ["--model", "own_networks:norm", "--dynamic", "rigl", "--update-every", "5", "--backend", "dense"],
    "whole": ["--model", "own_networks:is_killed"],
    "fails": ["--model", "own_networks:fails"],
    "masks": ["--model", "own_networks:other_masks", "--backend", "dense"],
    "too few": ["--batch-size", "1"],
    "seeds": ["--replicates", "2"],
}
ALIKE = ("small", "norm", "rigl", "dense")
"""Played by one process, too."""
GO_ON = "the same command with --resume and this --out goes on from the last saved epoch"


def arguments(name: str, out: Path) -> list[str]:
    own = RUNS[name]
    model = [] if "--model" in own else ["--model", "own_networks:small"]
    return [*SHORT, *model, *own, "--out", str(out / name)]


def torchrun(directory: Path, *given: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, directory)))
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, given)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    (made / "own_networks.py").write_text(NETWORKS)
    return made


@pytest.fixture(scope="module")
def together(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes said and gave, by run; the runs are under `folder/together`."""
    scenarios = {name: arguments(name, folder / "together") for name in RUNS}
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    done = torchrun(folder, ROOT / "tests/commands/several_processes.py", folder / "scenarios.json", folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """Where the runs are that one process played."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(report, "pictures", lambda info, record: [])
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "own_networks", raising=False)
        for name in ALIKE:
            assert run.main(arguments(name, folder / "alone")) == 0
    return folder / "alone"


def losses(out: Path) -> list[float]:
    with open(out / "curves.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train_loss", "validation_loss")]


def furthest(one: Path, other: Path) -> float:
    """The largest relative difference of the losses on the way."""
    return max(abs(a - b) / b for a, b in zip(losses(one), losses(other), strict=True))


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_what_one_does(name: str, together: list[Any], alone: Path, folder: Path) -> None:
    assert [process[name]["status"] for process in together] == [0, 0], together
    assert furthest(folder / "together" / name, alone / name) < 1e-4
    for row, of_one in zip(rows(folder / "together" / name), rows(alone / name), strict=True):
        for column, value in of_one.items():
            if column.startswith("accuracy") and value:
                assert float(row[column]) == pytest.approx(float(value), abs=0.015), column  # Two images of 143.
        assert row["live_weights"] == of_one["live_weights"]


def test_local_statistics_train_something_else(together: list[Any], alone: Path, folder: Path) -> None:
    assert together[0]["local"]["status"] == 0
    assert furthest(folder / "together" / "local", alone / "norm") > 1e-3


def test_the_run_says_how_it_was_played(together: list[Any], folder: Path) -> None:
    for name, said in (("norm", "those of the whole batch (synchronised)"), ("local", "each process's part (local)")):
        out = folder / "together" / name
        assert said in together[0][name]["error"]
        assert said in html.unescape((out / "report.html").read_text())
        info = json.loads((out / "config.json").read_text())
        assert info["environment"]["processes"] == 2
        assert info["command"].startswith("torchrun --nproc-per-node 2 -m lth_sparse.run --dataset digits")
    assert "BatchNorm" not in together[0]["small"]["error"]


def test_only_live_weights_travel(together: list[Any], alone: Path, folder: Path) -> None:
    for name in ("norm", "dense"):
        dense, ticket = rows(folder / "together" / name)
        weights = 6 * 9 + 6 * 16 * 12 + 12 * 10
        rest = 12 + 24 + 10
        assert int(dense["gradient_bytes"]) == int(ticket["dense_gradient_bytes"]) == 4 * (weights + rest)
        live = weights if name == "dense" else int(ticket["live_weights"])
        assert int(ticket["gradient_bytes"]) == 4 * (live + rest)
    assert f"have {4 * (live + rest):,} bytes, 100.0% of" in together[0]["dense"]["out"]
    assert [row["gradient_bytes"] for row in rows(alone / "norm")] == ["", ""]
    for rank in range(2):
        travelled = torch.load(folder / f"computed-{rank}.pt")["travelled"]
        assert travelled["sent"] == travelled["said"] < 4 * 20 * 30


@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_synchronised_statistics_are_those_of_the_whole_batch(kind: str, together: list[Any], folder: Path) -> None:
    parts = [torch.load(folder / f"computed-{rank}.pt")[kind] for rank in range(2)]
    norm, images = norm_and_images(kind)
    expected = normalised(norm.double(), images.double())
    # The loss of each part is of twice the weight, as DistributedDataParallel takes the average.
    halves = {"output": torch.cat([part["output"] for part in parts])}
    halves |= {"gradient of input": torch.cat([part["gradient of input"] for part in parts]) / 2}
    for name in ("weight", "bias"):
        halves[f"gradient of {name}"] = (parts[0][f"gradient of {name}"] + parts[1][f"gradient of {name}"]) / 2
    for name, value in expected.items():
        for part in parts:
            found = halves.get(name, part[name]).double()
            torch.testing.assert_close(found, value.double(), rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_first_process_alone_writes_and_speaks(together: list[Any], folder: Path) -> None:
    first, second = together
    for name in (*ALIKE, "local", "whole"):
        assert first[name]["out"]
        assert "round 1/1" in first[name]["error"]
        assert second[name]["out"] == second[name]["error"] == ""
    assert not list(folder.rglob("*.part"))
    assert not list(folder.rglob(".lock"))


def test_masks_that_differ_end_all(together: list[Any]) -> None:
    for process in together:
        ended = process["masks"]
        assert ended["status"] == 2
        last = ended["error"].splitlines()[-1]
        assert "the masks of round 1 (ticket) are not the same in all 2 processes: those of process 1 differ" in last
        assert GO_ON in last


def test_an_exception_in_one_process_ends_all(together: list[Any]) -> None:
    first, second = (process["fails"] for process in together)
    assert (first["status"], second["status"]) == (2, 1)
    last = first["error"].splitlines()[-1]
    assert "process 1 of 2 has ended (RuntimeError: no more of this), so this one cannot go on" in last
    assert GO_ON in last
    (line,) = second["error"].splitlines()
    assert "unexpected RuntimeError: no more of this; please report it" in line
    Path(re.search(r"with (\S+)$", line)[1]).unlink()  # type: ignore[index]


def test_what_several_processes_cannot_do_is_refused(together: list[Any]) -> None:
    for process in together:
        assert (
            "--batch-size 1: a step on 1 images is for at most 1 processes, and there are 2"
            in process["too few"]["error"]
        )
        assert "torchrun: --replicates is for one process, and was started in 2" in process["seeds"]["error"]
        assert process["too few"]["status"] == process["seeds"]["status"] == 2


def test_a_killed_process_ends_all_and_torchrun_starts_them_again(together: list[Any], folder: Path) -> None:
    given = arguments("whole", folder / "killed")
    done = torchrun(folder, "--max-restarts", 1, "-m", "lth_sparse.run", *given, KILL="1")
    assert done.returncode == 0, done.stderr
    sentences = [line for line in done.stderr.splitlines() if GO_ON in line]
    assert len(sentences) == 1, done.stderr
    assert re.search("has ended without a word: killed|was told to stop", sentences[0])
    assert f'File "{ROOT}' not in done.stderr  # No traceback of ours.
    told = rows(folder / "killed" / "whole", without_times=True)
    assert told == rows(folder / "together" / "whole", without_times=True)


def test_a_run_that_torchrun_starts_again_needs_a_name(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    assert run.main([*SHORT]) == 2
    assert "--out: torchrun is to start the run again" in capsys.readouterr().err
