"""`python -m lth_sparse.run --dynamic ...` and `--schedule gradual`: topologies that a training changes itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lth_sparse as lth
from lth_sparse.lottery.training import Training
from lth_sparse.nn.masks import Masks
from lth_sparse.settings import config, file
from lth_sparse.storage.record import TIME_COLUMNS
from tests.conftest import called_until_done, error_line, rows, table

pytestmark = pytest.mark.usefixtures("without_plots")

Lottery = Callable[..., tuple[int, str]]
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 1, "--batch-size", 128, "--iterations", 30,
    "--evaluate-every", 7, "--update-every", 4, "--sparsity", 0.9, "--scope", "global", "--controls", "none",
    "--fc-rate", 0.2,
)  # fmt: skip
ERK = ("--criterion", "erk", "--prune-at", "start")
GRADUAL = ("--schedule", "gradual")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, str], list[Masks]]:
    """The masks of each training when it begins, and when it is over."""
    found: dict[tuple[int, str], list[Masks]] = {}
    run = Training.run

    def noted(self: Training, *callbacks: Callable[[], None]) -> None:
        label = (self.round, self._arm)
        found[label] = [dict(self.masks)]
        run(self, *callbacks)
        found[label].append(dict(self.masks))

    monkeypatch.setattr(Training, "run", noted)
    return found


def counts(masks: Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


def same(one: Masks, other: Masks) -> bool:
    return all(torch.equal(mask, other[name]) for name, mask in one.items())


def proofs(out: Path, arm: str) -> dict[str, str]:
    record = json.loads((out / "record.json").read_text())["record"]
    return {each["statement"]: each["detail"] for each in record["proofs"] if (each["round"], each["arm"]) == (1, arm)}


@pytest.mark.parametrize(("rule", "backend"), [("rigl", "cpp"), ("set", "dense")])
def test_the_topology_of_the_ticket_changes_beside_a_static_one(
    tmp_path: Path, lottery: Lottery, seen: dict[tuple[int, str], list[Masks]], rule: str, backend: str
) -> None:
    out = tmp_path / "run"
    status, error = lottery(*SHORT, *ERK, "--dynamic", rule, "--backend", backend, "--controls", "static", "--out", out)
    assert status == 0, error
    (began, ended), (static, static_too) = seen[1, "ticket"], seen[1, "static"]
    assert same(static, began)
    assert same(static_too, began)
    assert not same(ended, began)
    assert counts(ended) == counts(began)
    dense, row = rows(out)
    assert dense["repacking_seconds"] == dense["accuracy_static"] == ""
    assert 0 < float(row["accuracy_static"]) <= 1
    assert 0 < float(row["repacking_seconds"]) < float(row["seconds"])
    assert (float(row["dense_gradient_seconds"]) > 0) == (rule == "rigl")
    assert int(row["live_weights"]) == sum(counts(began).values())
    assert [int(each["live"]) for each in table(out / "layers.csv")[3:]] == list(counts(began).values())
    # The ticket has the masks that its training ended with, and the weights that it rewinds to.
    initial = lth.read_ticket(out / "tickets" / "round-00.safetensors").weights
    ticket = lth.read_ticket(out / "tickets" / "round-01.safetensors")
    assert same(ticket.masks, ended)
    for name, mask in ended.items():
        assert torch.equal(ticket.weights[f"{name}.weight"], initial[f"{name}.weight"] * mask)
    changed = "after training as many weights live as its topology is to have"
    assert proofs(out, "ticket")[changed] == f"{sum(counts(began).values())} in 3 layers"
    assert changed not in proofs(out, "static")
    assert "every pruned weight is exactly 0 after training" in proofs(out, "ticket")
    if rule == "rigl":  # Without a rule the ticket is what the static control is with one.
        assert lottery(*SHORT, *ERK, "--backend", backend, "--out", tmp_path / "static")[0] == 0
        assert rows(tmp_path / "static")[1]["accuracy_retrained"] == row["accuracy_static"]


def test_gradual_pruning_goes_from_dense_to_the_final_sparsity(
    tmp_path: Path, lottery: Lottery, seen: dict[tuple[int, str], list[Masks]]
) -> None:
    out = tmp_path / "run"
    given = ("--backend", "cpp", "--controls", "random,reinit")
    status, error = lottery(*SHORT, *GRADUAL, *given, "--out", out)
    assert status == 0, error
    began, ended = seen[1, "ticket"]
    assert all(bool(mask.all()) for mask in began.values())
    row = rows(out)[1]
    assert float(row["sparsity"]) == pytest.approx(0.9, abs=1e-3)
    assert row["accuracy_before_prune"] == row["accuracy_after_prune"] == rows(out)[0]["accuracy_retrained"]
    assert same(lth.read_ticket(out / "tickets" / "round-01.safetensors").masks, ended)
    # Controls have the masks that the ticket ended with, or as many live weights.
    assert [same(mask, ended) for mask in seen[1, "reinit"]] == [True, True]
    assert counts(seen[1, "random"][1]) == counts(ended)
    assert proofs(out, "ticket")["after training as many weights live as its topology is to have"]


@pytest.mark.parametrize(
    "given",
    [
        (*ERK, "--dynamic", "rigl", "--controls", "static", "--backend", "cpp"),
        (*GRADUAL, "--controls", "reinit", "--backend", "cpp"),
    ],
    ids=["rigl", "gradual"],
)
def test_killed_again_and_again_it_ends_with_the_same_bits(
    tmp_path: Path, lottery: Lottery, given: tuple[str, ...]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert lottery(*SHORT, *given, "--out", whole)[0] == 0
    (status, error), kills = called_until_done(
        lambda: lottery(*SHORT, *given, "--out", killed, "--resume"), lambda store, written: written == 2
    )
    assert status == 0, error
    assert kills == 4  # An epoch has 10 steps: some come between two updates, some right before one.
    assert rows(killed, without_times=True) == rows(whole, without_times=True)
    for path in (whole / "tickets").iterdir():
        assert path.read_bytes() == (killed / "tickets" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--dynamic", "rigel"), '--dynamic rigel: expected one of none, set, rigl, did you mean "rigl"'),
        (("--dynamic", "rigl", "--update-every", 0), "--update-every 0: expected a whole number of at least 1"),
        (("--dynamic", "rigl", "--update-every", 23), "--update-every 23: .*to step 22; expected at most 22"),
        ((*GRADUAL, "--update-every", 23), "--update-every 23: .*to step 22; expected at most 22"),
        (("--controls", "static"), "--controls static: where the topology of the ticket stays .*--dynamic set or rigl"),
        ((*GRADUAL, "--rounds", 2), "--schedule gradual prunes in a single training.*--rounds 1 and --sparsity"),
        ((*GRADUAL, "--prune-rate", 0.5), "--schedule gradual prunes in a single training.*--rounds 1 and --sparsity"),
        ((*GRADUAL, "--dynamic", "set"), "--dynamic set: --schedule gradual starts dense"),
        ((*GRADUAL, *ERK), "--criterion erk: --schedule gradual starts dense"),
        ((*GRADUAL, "--prune-at", "start"), "--prune-at start: --schedule gradual starts dense"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, lottery: Lottery, given: tuple[object, ...], message: str) -> None:
    short: tuple[object, ...] = SHORT
    if "--prune-rate" in given:
        short = tuple(each for each in SHORT if each not in ("--sparsity", 0.9))
    status, error = lottery(*short, *given, "--out", tmp_path / "run")
    assert status == 2
    assert pytest.raises(AssertionError, match=message).matches(AssertionError(error_line(error)))
    assert not (tmp_path / "run").exists()


def test_runs_of_before_had_topologies_that_stay(tmp_path: Path) -> None:
    settings = config.build({}).to_json()
    del settings["pruning"]["dynamic"], settings["pruning"]["update_every"]
    read = config.Config.from_json(settings)
    assert (read.pruning.dynamic, read.pruning.update_every) == ("none", 100)
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    given = file.read(tmp_path / "config.json")
    assert (given["dynamic"], given["update_every"]) == ("none", 100)
    assert {"repacking_seconds", "dense_gradient_seconds"} <= set(TIME_COLUMNS)
