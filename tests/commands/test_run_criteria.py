"""`python -m lth_sparse.run --criterion ... --prune-at ...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lth_sparse as lth
from lth_sparse.lottery import criteria
from tests.conftest import Killed, error_line, killed_when, rows

pytestmark = pytest.mark.usefixtures("without_plots")

Lottery = Callable[..., tuple[int, str]]
SHORT = (
    "--dataset", "digits", "--model", "lenet-300-100", "--rounds", 2, "--iterations", 12, "--evaluate-every", 6,
    "--backend", "dense", "--controls", "none", "--sparsity", 0.9,
)  # fmt: skip


def given(*arguments: object) -> tuple[object, ...]:
    """What comes last wins."""
    return (*SHORT, *arguments)


@pytest.mark.parametrize(("prune_at", "scope"), [("end", "layerwise"), ("start", "global")])
@pytest.mark.parametrize("criterion", criteria.CRITERIA)
def test_each_criterion_prunes_before_and_after_training(
    tmp_path: Path, lottery: Lottery, criterion: str, prune_at: str, scope: str
) -> None:
    out = tmp_path / "run"
    status, error = lottery(*given("--criterion", criterion, "--prune-at", prune_at, "--scope", scope, "--out", out))
    assert status == 0, error
    assert [float(row["sparsity"]) for row in rows(out)] == pytest.approx([0, 1 - 0.1**0.5, 0.9], abs=1e-3)
    tickets = [lth.read_ticket(out / "tickets" / f"round-0{round}.safetensors").masks for round in (1, 2)]
    if prune_at == "end":  # What is pruned stays pruned.
        assert all(not (tickets[1][name] & ~mask).any() for name, mask in tickets[0].items())


def test_at_the_start_the_rewind_weights_are_pruned_before_any_training(tmp_path: Path, lottery: Lottery) -> None:
    out = tmp_path / "run"
    assert lottery(*given("--prune-at", "start", "--out", out))[0] == 0
    initial = lth.read_ticket(out / "tickets" / "round-00.safetensors").weights
    for round in (1, 2):
        for name, mask in lth.read_ticket(out / "tickets" / f"round-0{round}.safetensors").masks.items():
            magnitudes = initial[f"{name}.weight"].abs()
            assert magnitudes[mask].min() >= magnitudes[~mask].max()
    table = rows(out)
    # Of the untrained network, once whole and once pruned.
    assert table[1]["accuracy_before_prune"] == table[2]["accuracy_before_prune"]
    assert float(table[1]["accuracy_before_prune"]) < float(table[0]["accuracy_retrained"])
    assert table[1]["accuracy_after_prune"] == table[1]["accuracy_rewound"]


def test_interrupted_it_goes_on_to_the_same_end(tmp_path: Path, lottery: Lottery) -> None:
    chosen = given("--criterion", "snip", "--prune-at", "start", "--rewind-iteration", 3)
    assert lottery(*chosen, "--out", tmp_path / "whole")[0] == 0
    for _ in range(3):
        with killed_when(), pytest.raises(Killed):
            lottery(*chosen, "--out", tmp_path / "killed", "--resume")
    assert lottery(*chosen, "--out", tmp_path / "killed", "--resume")[0] == 0
    assert rows(tmp_path / "killed", without_times=True) == rows(tmp_path / "whole", without_times=True)


def test_a_function_of_ones_own(tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_criteria.py").write_text(
        "def largest(model):\n    return {name: layer.weight.detach() for name, layer in model.named_modules() "
        "if hasattr(layer, 'weight')}\n\n\ndef none(model):\n    return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    status, error = lottery(*given("--criterion", "own_criteria:largest", "--prune-at", "start", "--out", out))
    assert status == 0, error
    ticket = lth.read_ticket(out / "tickets" / "round-02.safetensors")
    assert all(bool((ticket.weights[f"{name}.weight"][mask] > 0).all()) for name, mask in ticket.masks.items())
    status, error = lottery(*given("--criterion", "own_criteria:none", "--prune-at", "start", "--out", tmp_path / "no"))
    assert status == 2
    assert 'criterion: got NoneType for layer "fc1", expected scores of the shape of its weight' in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--criterion", "snap"), '--criterion snap: expected one of magnitude, .*, did you mean "snip"'),
        (("--criterion", "nowhere:none"), "--criterion nowhere:none: 'nowhere' cannot be imported"),
        (("--prune-at", "middle"), "--prune-at middle: expected one of end, start"),
        (("--prune-at", "start", "--rewind", "none"), "--prune-at start chooses among all weights anew"),
        (("--prune-at", "start", "--controls", "rewind-none"), "--prune-at start chooses among all weights anew"),
        (("--criterion", "erk", "--controls", "random"), "controls: random beside a criterion that is random itself"),
        (("--criterion", "snip", "--controls", "invert"), "controls: invert turns magnitudes over, and the criterion"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, lottery: Lottery, arguments: tuple[str, ...], message: str) -> None:
    status, error = lottery(*given(*arguments, "--out", tmp_path / "run"))
    assert status == 2
    assert pytest.raises(AssertionError, match=message).matches(AssertionError(error_line(error)))
    assert not (tmp_path / "run").exists()


def test_chance_is_another_one_each_seed(tmp_path: Path, lottery: Lottery) -> None:
    masks = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        assert lottery(*given("--criterion", "random", "--rounds", 1, "--seed", seed, "--out", out))[0] == 0
        masks.append(lth.read_ticket(out / "tickets" / "round-01.safetensors").masks["fc1"])
    assert not torch.equal(*masks)
