"""`python -m lth_sparse.run --controls ... --rewind ...`: what is trained beside a ticket, and what it goes back to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse import run as command
from lth_sparse.lottery.training import Training, learning_rate
from lth_sparse.nn.forms import dense_state
from lth_sparse.nn.masks import Masks
from lth_sparse.settings import config
from lth_sparse.storage.arms import CONTROLS
from tests.conftest import called_until_done, error_line, rows

pytestmark = pytest.mark.usefixtures("without_plots")

Lottery = Callable[..., tuple[int, str]]
EVERY = tuple(name for name in CONTROLS if name != "static")
"""Of a ticket whose topology stays."""
LENGTHLESS = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 2, "--evaluate-every", 6, "--milestones", 0.5,
    "--backend", "dense",
)  # fmt: skip
SHORT = (*LENGTHLESS, "--iterations", 12, "--batch-size", 32)


class Started:
    """What each training of a run began with, and the learning rates of its first and its last step."""

    def __init__(self) -> None:
        self.weights: dict[tuple[int, str], dict[str, Tensor]] = {}
        self.masks: dict[tuple[int, str], Masks] = {}
        self.rates: dict[tuple[int, str], list[float]] = {}
        self.ended: dict[tuple[int, str], dict[str, Tensor]] = {}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    seen = Started()
    begin, run = Training.__init__, Training.run

    def noted_begin(self: Training, model: nn.Module, masks: Masks, *others: object) -> None:
        begin(self, model, masks, *others)  # type: ignore[arg-type]
        label = others[3]
        seen.weights[label] = {name: value.clone() for name, value in dense_state(model).items()}
        seen.masks[label] = {name: mask.clone() for name, mask in masks.items()}
        settings = others[2]
        seen.rates[label] = [learning_rate(settings, step, self.total) for step in (self.iteration, self.total - 1)]

    def noted_run(self: Training, *callbacks: Callable[[], None]) -> None:
        run(self, *callbacks)
        seen.ended[self.round, self._arm] = {name: value.clone() for name, value in dense_state(self.model).items()}

    monkeypatch.setattr(Training, "__init__", noted_begin)
    monkeypatch.setattr(Training, "run", noted_run)
    return seen


def masked(weights: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    kept = {f"{name}.weight": mask for name, mask in masks.items()}
    return {name: value * kept[name] if name in kept else value for name, value in weights.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_every_control_begins_as_it_says(tmp_path: Path, lottery: Lottery, started: Started) -> None:
    status, error = lottery(*SHORT, "--controls", ",".join(EVERY), "--out", tmp_path / "run")
    assert status == 0, error
    initial = started.weights[0, "ticket"]
    for round in (1, 2):
        masks = {arm: started.masks[round, arm] for arm in ("ticket", *EVERY)}
        starts = {arm: started.weights[round, arm] for arm in ("ticket", *EVERY)}
        for arm in EVERY:
            assert same(masks[arm], masks["ticket"]) == (arm in ("reinit", "sign", "rewind-none")), arm
            assert {n: int(m.sum()) for n, m in masks[arm].items()} == {
                n: int(m.sum()) for n, m in masks["ticket"].items()
            }
        for arm in ("ticket", "random", "shuffle", "invert"):
            assert same(starts[arm], masked(initial, masks[arm])), arm
        assert same(starts["rewind-none"], masked(started.ended[round - 1, "ticket"], masks["ticket"]))
        assert not any(same(starts["reinit"], other) for arm, other in starts.items() if arm != "reinit")
        for name, value in starts["sign"].items():
            assert torch.equal(value.sign(), starts["ticket"][name].sign())
        trained = started.ended[0, "ticket"]
        for name, mask in masks["invert"].items():
            assert trained[f"{name}.weight"][mask].abs().max() <= trained[f"{name}.weight"][~mask].abs().min()
        rates = {arm: started.rates[round, arm] for arm in ("ticket", *EVERY)}
        assert rates.pop("rewind-none") == [2e-4, 2e-4]
        assert set(map(tuple, rates.values())) == {(2e-3, 2e-4)}


def test_each_control_has_its_column_its_line_and_its_proofs(tmp_path: Path, lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--controls", ",".join(EVERY), "--out", tmp_path / "run")
    assert status == 0, error
    dense, *pruned = rows(tmp_path / "run")
    assert all(dense[arm.column] == "" for arm in CONTROLS.values())
    trained = [CONTROLS[name] for name in EVERY]
    assert all(0 < float(row[arm.column]) <= 1 for row in pruned for arm in trained)
    (said,) = [line for line in error.splitlines() if line.startswith("round 1/2")]
    report = (tmp_path / "run" / "report.html").read_text()
    for arm in trained:
        assert f", {arm.words} {float(pruned[0][arm.column]):.2%}" in said
        assert f'<th scope="col">{arm.words}</th>' in report
        assert f"A control: {arm.says}, trained alike." in report.replace("&#x27;", "'")
    assert f"rounds 0..2, ticket; rounds 1..2, {', '.join(arm.words for arm in trained)}" in report
    proofs = json.loads((tmp_path / "run" / "record.json").read_text())["record"]["proofs"]
    assert {(proof["round"], proof["arm"]) for proof in proofs} == {
        (0, "ticket"), *((round, arm) for round in (1, 2) for arm in ("ticket", *EVERY)),
    }  # fmt: skip


def test_a_control_that_was_not_trained_is_not_shown(tmp_path: Path, lottery: Lottery) -> None:
    assert lottery(*SHORT, "--controls", "reinit", "--out", tmp_path / "run")[0] == 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert [arm.name for arm in CONTROLS.values() if f">{arm.words}</th>" in report] == ["reinit"]
    assert all(row["accuracy_random"] == "" for row in rows(tmp_path / "run"))


def test_rewinding_to_an_epoch_is_rewinding_to_its_last_step(tmp_path: Path, lottery: Lottery) -> None:
    of_one = ("--rounds", 1, "--iterations", 15, "--batch-size", 256, "--controls", "reinit")
    status, error = lottery(*SHORT, *of_one, "--rewind-epoch", 2, "--out", tmp_path / "epoch")
    assert status == 0, error
    info = json.loads((tmp_path / "epoch" / "config.json").read_text())
    step = 2 * (info["dataset"]["train"] // 256)
    assert 0 < step < 15
    assert lottery(*SHORT, *of_one, "--rewind-iteration", step, "--out", tmp_path / "step")[0] == 0
    other = json.loads((tmp_path / "step" / "config.json").read_text())
    assert info["rewind"] == other["rewind"] == {"iteration": step, "sha256": other["rewind"]["sha256"]}
    assert rows(tmp_path / "epoch", without_times=True) == rows(tmp_path / "step", without_times=True)
    ticket = lth.read_ticket(tmp_path / "epoch" / "tickets" / "round-01.safetensors")
    assert ticket.metadata["rewind"]["iteration"] == step


def test_an_epoch_that_no_training_reaches_is_refused(tmp_path: Path, lottery: Lottery) -> None:
    status, error = lottery(*SHORT, "--rewind-epoch", 9, "--out", tmp_path / "run")
    assert status == 2
    assert "--rewind-epoch 9 is step " in error_line(error.splitlines()[-1])
    assert "expected fewer than the 12 steps of a training run" in error


@pytest.mark.parametrize("schedule", ["geometric", "one-shot"])
@pytest.mark.parametrize("rewind", ["learning-rate", "none"])
def test_a_ticket_that_is_not_rewound_goes_on_from_what_was_trained(
    tmp_path: Path, lottery: Lottery, started: Started, rewind: str, schedule: str
) -> None:
    given = (*SHORT, "--controls", "none", "--rewind", rewind, "--schedule", schedule, "--sparsity", 0.5)
    status, error = lottery(*given, "--out", tmp_path / "run")
    assert status == 0, error
    for round in (1, 2):
        masks = started.masks[round, "ticket"]
        before = started.ended[0 if schedule == "one-shot" else round - 1, "ticket"]
        assert same(started.weights[round, "ticket"], masked(before, masks))
        ticket = lth.read_ticket(tmp_path / "run" / "tickets" / f"round-0{round}.safetensors")
        assert same(ticket.weights, started.weights[round, "ticket"])
        assert started.rates[round, "ticket"] == [2e-4 if rewind == "none" else 2e-3, 2e-4]
        row = rows(tmp_path / "run")[round]
        assert row["accuracy_rewound"] == row["accuracy_after_prune"]


ALIASED = ("--rewind", "aliased", "--controls", "none", "--epochs", 2, "--batch-size", 256)


def test_an_emulated_missing_rewind_goes_on_with_weights_and_optimizer_and_says_so(
    tmp_path: Path,
    lottery: Lottery,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, states = Training.run, []

    def noted(self: Training, *callbacks: Callable[[], None]) -> None:
        began = {name: value.clone() for name, value in self.optimizer_state().items()}
        run(self, *callbacks)
        states.append((began, {name: value.clone() for name, value in self.optimizer_state().items()}))

    monkeypatch.setattr(Training, "run", noted)
    status = command.main([*map(str, (*LENGTHLESS, *ALIASED)), "--out", str(tmp_path / "run")])
    assert (status, capsys.readouterr().out[:31]) == (0, "Emulation of a missing rewind: ")
    assert not states[0][0]
    for round in (1, 2):
        masks = started.masks[round, "ticket"]
        assert same(started.weights[round, "ticket"], masked(started.ended[round - 1, "ticket"], masks))
        began, before = states[round][0], states[round - 1][1]
        assert began.keys() == before.keys()
        assert all(torch.equal(began[name], before[name]) for name in began)
    proofs = json.loads((tmp_path / "run" / "record.json").read_text())["record"]["proofs"]
    said = [proof for proof in proofs if proof["statement"].startswith("not proved: emulates a rewind that copies")]
    assert [proof["round"] for proof in said] == [1, 2]
    assert all("0 of" not in proof["detail"] and "with 0 entries" not in proof["detail"] for proof in said)
    assert not any(p["round"] and p["statement"] == "the optimizer starts empty" for p in proofs)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>Emulation of a missing rewind: " in page
    assert "No ticket here was rewound, and the optimizer lived on" in page
    assert "live on</strong> — checked in" not in page


def test_killed_again_and_again_an_emulation_ends_with_the_same_table(tmp_path: Path, lottery: Lottery) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert lottery(*LENGTHLESS, *ALIASED, "--out", whole)[0] == 0
    (status, error), kills = called_until_done(lambda: lottery(*LENGTHLESS, *ALIASED, "--out", killed, "--resume"))
    assert (status, kills) == (0, 6), error
    assert rows(killed, without_times=True) == rows(whole, without_times=True)


@pytest.mark.parametrize(("rewind", "schedule"), [("weights", "geometric"), ("none", "one-shot")])
def test_killed_again_and_again_a_run_with_every_control_ends_with_the_same_table(
    tmp_path: Path, lottery: Lottery, rewind: str, schedule: str
) -> None:
    controls = [name for name in EVERY if (rewind, name) != ("none", "rewind-none")]
    given = (*SHORT, "--rewind", rewind, "--schedule", schedule, "--sparsity", 0.5, "--controls", ",".join(controls))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert lottery(*given, "--out", whole)[0] == 0
    (status, error), kills = called_until_done(
        lambda: lottery(*given, "--out", killed, "--resume"), lambda store, written: written == 3
    )
    assert status == 0, error
    assert kills > 2 * len(controls) // 3
    assert rows(killed, without_times=True) == rows(whole, without_times=True)
    for path in (whole / "tickets").iterdir():
        assert path.read_bytes() == (killed / "tickets" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--controls", "randm"), '--controls randm: expected some of random, .*, did you mean "random"'),
        (("--controls", "reinit,sing"), '--controls sing: expected some of .*, did you mean "sign"'),
        (("--rewind", "weigths"), '--rewind weigths: expected one of weights, .*, did you mean "weights"'),
        (("--rewind", "none", "--controls", "rewind-none"), "--controls rewind-none: with --rewind none that is the"),
        (
            ("--rewind", "aliased"),
            "--rewind aliased emulates a program of plain PyTorch.* give it --backend dense, --con",
        ),
        (
            ("--dynamic", "set", "--instability", 3),
            "--dynamic set: the topology changes in training, and --instability",
        ),
        (
            ("--schedule", "gradual", "--rounds", 1, "--sparsity", 0.9, "--rewind", "aliased", "--controls", "none"),
            "--schedule gradual: the topology changes in training, and --rewind aliased needs one that stays",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    tmp_path: Path, lottery: Lottery, given: tuple[object, ...], message: str
) -> None:
    status, error = lottery(*SHORT, *given, "--out", tmp_path / "run")
    assert status == 2
    assert pytest.raises(AssertionError, match=message).matches(AssertionError(error_line(error)))
    assert not (tmp_path / "run").exists()


def test_a_control_is_trained_once_however_often_it_is_named(tmp_path: Path, lottery: Lottery) -> None:
    assert lottery(*SHORT, "--controls", "random,random", "--out", tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["pruning"]["controls"] == ["random"]


def test_runs_of_before_said_it_otherwise(tmp_path: Path, lottery: Lottery) -> None:
    """Their option was --control, of one value, and so is their config.json."""
    assert lottery(*SHORT, "--control", "random", "--out", tmp_path / "run")[0] == 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    del settings["config"]["pruning"]["controls"], settings["config"]["pruning"]["rewind"]
    for name, controls in (("random", ("random",)), ("none", ())):
        settings["config"]["pruning"]["control"] = name
        read = config.Config.from_json(settings["config"])
        assert (read.pruning.controls, read.pruning.rewind) == (controls, "weights")
        assert replace(read, data=replace(read.data, dataset="auto"))
    (tmp_path / "old.json").write_text(json.dumps(settings))
    assert lottery("--config", tmp_path / "old.json", "--out", tmp_path / "again")[0] == 0
    assert all(row["accuracy_random"] == "" for row in rows(tmp_path / "again"))
