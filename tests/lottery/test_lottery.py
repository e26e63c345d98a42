"""lth.Lottery: whole lotteries of one's own model, training and evaluation."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse.storage.record import TIME_COLUMNS, Record
from lth_sparse.system.errors import BackendError, InputError, ProofError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    loaded = load_digits()
    return torch.from_numpy(loaded.images).float()[:, None] / 8 - 1, torch.from_numpy(loaded.target)


@pytest.fixture
def train(digits: tuple[Tensor, Tensor]) -> Callable[[nn.Module], None]:
    images, labels = digits

    def train(model: nn.Module) -> None:
        assert model.training
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        generator = torch.Generator().manual_seed(1)
        for _ in range(30):
            batch = torch.randint(1000, (64,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()

    return train


def accuracy_on(digits: tuple[Tensor, Tensor], part: slice) -> Callable[[nn.Module], Tensor]:
    images, labels = digits

    def accuracy(model: nn.Module) -> Tensor:
        assert not model.training
        assert not torch.is_grad_enabled()
        return (model(images[part]).argmax(1) == labels[part]).float().mean()

    return accuracy


@pytest.fixture
def evaluate(digits: tuple[Tensor, Tensor]) -> Callable[[nn.Module], Tensor]:
    return accuracy_on(digits, slice(1200, None))


Functions = tuple[Callable[[nn.Module], Any], Callable[[nn.Module], Any]]


def rows(record: Record) -> list[dict[str, Any]]:
    return [{k: v for k, v in asdict(row).items() if k not in TIME_COLUMNS} for row in record.rounds]


def test_it_finds_tickets_and_leaves_a_report(
    digits: tuple[Tensor, Tensor], train: Any, evaluate: Any, tmp_path: Path
) -> None:
    model, seen = network(), []
    before = copy.deepcopy(model.state_dict())
    lottery = lth.Lottery(
        model, train=train, evaluate=evaluate, validate=accuracy_on(digits, slice(1000, 1200)), rounds=3, rate=0.5,
        controls=["random"], dataset="digits", out=tmp_path / "out", on_round=seen.append,
    )  # fmt: skip
    record = lottery.run()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [row.round for row in seen] == [0, 1, 2, 3]
    assert [row.live_weights for row in record.rounds] == [1352, 676, 338, 169]
    assert record.rounds[0].accuracy_retrained > 0.7
    assert record.rounds[0].accuracy_random is None
    assert record.rounds[1].accuracy_retrained > record.rounds[1].accuracy_after_prune
    for previous, row in zip(record.rounds, record.rounds[1:], strict=False):
        assert row.accuracy_before_prune == previous.accuracy_retrained
        assert row.accuracy_random is not None
    statements = {(proof.round, proof.arm, proof.statement) for proof in record.proofs}
    assert {(3, arm, "w == w0 * mask, bit for bit") for arm in ("ticket", "random")} <= statements

    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "rounds.csv", "record.json", "report.html", "tickets", "plots"} <= left
    assert "state" not in left
    with open(tmp_path / "out" / "rounds.csv", newline="") as file:
        assert [row["live_weights"] for row in csv.DictReader(file)] == ["1352", "676", "338", "169"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Sequential on digits" in page
    assert "the test set selected nothing" in page

    ticket, masks = lottery.ticket(2), lth.read_ticket(tmp_path / "out" / "tickets" / "round-02.safetensors").masks
    assert isinstance(ticket[0], lth.SparseConv2d)
    for name, mask in masks.items():
        assert torch.equal(ticket.get_submodule(name).weight, before[f"{name}.weight"] * mask)
    trained = lottery.trained().eval()
    with torch.no_grad():
        assert float(evaluate(trained)) == pytest.approx(record.rounds[-1].accuracy_retrained, abs=0.01)
    assert sum(layer.values.numel() for layer in (trained[0], trained[5])) == 169


def test_without_validation_the_report_says_what_chose(train: Any, evaluate: Any, tmp_path: Path) -> None:
    lth.Lottery(network(), train=train, evaluate=evaluate, rounds=1, out=tmp_path / "out").run()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the test set selected nothing" not in page
    assert "chosen by the very evaluation that is quoted" in page


def test_pruned_layers_are_sparse_while_they_are_trained(train: Any, evaluate: Any) -> None:
    kinds = []

    def noting(model: nn.Module) -> None:
        kinds.append((lottery.round, lottery.arm, type(model[0]).__name__, type(model[5]).__name__))
        train(model)

    lottery = lth.Lottery(network(), train=noting, evaluate=evaluate, rounds=1, layers=["0"], backend="cpp")
    lottery.run()
    # Winograd's kernels gain where nothing is pruned, too.
    assert kinds == [(0, "ticket", "SparseConv2d", "Linear"), (1, "ticket", "SparseConv2d", "Linear")]


def test_dense_trains_the_dense_network_as_it_is(train: Any, evaluate: Any) -> None:
    kinds = []

    def noting(model: nn.Module) -> None:
        kinds.append(type(model[0]).__name__)
        train(model)

    lth.Lottery(network(), train=noting, evaluate=evaluate, rounds=1, backend="dense").run()
    assert kinds == ["Conv2d", "SparseConv2d"]


def test_a_final_sparsity_and_a_global_scope(train: Any, evaluate: Any) -> None:
    record = lth.Lottery(network(), train=train, evaluate=evaluate, rounds=2, sparsity=0.9, scope="global").run()
    assert [row.live_weights for row in record.rounds] == [1352, pytest.approx(1352 * 0.1**0.5, abs=2), 135]


def test_rewind_here_keeps_the_weights_of_that_moment(train: Any, evaluate: Any) -> None:
    kept: dict[str, Tensor] = {}

    def late(model: nn.Module) -> None:
        train(model)
        lottery.rewind_here(model)
        if not kept:
            kept.update(lth.snapshot(model).weights)
        train(model)

    lottery = lth.Lottery(network(), train=late, evaluate=evaluate, rounds=1, backend="cpp")
    lottery.run()
    ticket = lottery.ticket(1)
    assert torch.equal(ticket[5].weight, kept["5.weight"] * ticket[5].mask)
    assert torch.equal(ticket[1].running_mean, kept["1.running_mean"])


@pytest.mark.parametrize("killed", [1, 2, 3, 4, 5])
def test_an_interrupted_lottery_goes_on_to_the_same(train: Any, evaluate: Any, tmp_path: Path, killed: int) -> None:
    """Killed in each of the five trainings: round 0, and two of each later round."""

    class Killed(Exception):
        pass

    calls = 0

    def dying(model: nn.Module) -> None:
        nonlocal calls
        calls += 1
        train(model)
        if calls == killed:
            raise Killed

    def lottery(train: Any, out: str) -> lth.Lottery:
        return lth.Lottery(
            network(), train=train, evaluate=evaluate, rounds=2, rate=0.5, controls=["random"], backend="cpp",
            out=tmp_path / out,
        )  # fmt: skip

    whole = lottery(train, "whole").run()
    with pytest.raises(Killed):
        lottery(dying, "killed").run()
    with pytest.raises(InputError, match="holds another run; add --resume"):
        lottery(train, "killed").run()
    with pytest.raises(InputError, match="other settings, or of other first weights"):
        lth.Lottery(network(), train=train, evaluate=evaluate, rounds=3, out=tmp_path / "killed").run(resume=True)
    resumed = lottery(dying, "killed").run(resume=True)
    assert rows(resumed) == rows(whole)
    assert [asdict(proof) for proof in resumed.proofs] == [asdict(proof) for proof in whole.proofs]
    ticket = "tickets/round-02.safetensors"
    first, second = (lth.read_ticket(tmp_path / out / ticket).masks for out in ("whole", "killed"))
    assert all(torch.equal(mask, second[name]) for name, mask in first.items())
    calls_before = calls
    (tmp_path / "killed" / "state").mkdir()  # As where the process was killed that removed it.
    (tmp_path / "killed" / "state" / "rewind.safetensors").touch()
    assert rows(lottery(dying, "killed").run(resume=True)) == rows(whole)
    assert calls == calls_before
    assert not (tmp_path / "killed" / "state").exists()


def forgets_the_mask(model: nn.Module) -> None:
    lth.set_masks(model, {name: torch.ones_like(mask) for name, mask in lth.get_masks(model).items()})
    for layer in (model[0], model[5]):
        layer.values.data += 0.1


MISTAKES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "a training that does nothing": (lambda model: None, "live positive weights moved .* 0 of"),
    "of a copy": (lambda model: forgets_the_mask(copy.deepcopy(model)), "live positive weights moved .* 0 of"),
    "that revives weights": (forgets_the_mask, "the masks are those of the round.* 0, 5 have others"),
    "that prunes": (lambda model: lth.prune(model, 0.5), "the masks are those of the round.* 0, 5 have others"),
}


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_the_training_stops_it(train: Any, evaluate: Any, mistake: Any, message: str) -> None:
    def wrong(model: nn.Module) -> None:
        (mistake if lottery.round else train)(model)

    lottery = lth.Lottery(network(), train=wrong, evaluate=evaluate, rounds=1, backend="cpp")
    with pytest.raises(ProofError, match=message):
        lottery.run()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no function": ({"train": 3}, "train: got a int, expected a function of the model"),
    "rounds": ({"rounds": -1}, "rounds: got -1, expected a whole number of at least 0"),
    "half a round": ({"rounds": 1.5}, "rounds: got 1.5"),
    "rate": ({"rate": 1.0}, r"rate: got 1.0, expected a fraction in \[0, 1\)"),
    "sparsity": ({"sparsity": 1}, "sparsity: got 1"),
    "nothing to reach it by": ({"sparsity": 0.5, "rounds": 0}, "but rounds=0 prunes nothing"),
    "scope": ({"scope": "layer"}, "scope: got 'layer', did you mean \"layerwise\""),
    "criterion": ({"criterion": "snp"}, "criterion: got 'snp'"),
    "control": ({"controls": ["randm"]}, "controls: got 'randm', did you mean \"random\""),
    "layer": ({"layers": ["1"]}, "no layer '1' that can be pruned.*it has 0, 5"),
    "a sparse model": ({"model": lth.prune(network(), 0.5)}, "model: got one that is pruned already"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"model": network(), "train": print, "evaluate": len, "out": tmp_path / "out"} | given
    with pytest.raises(InputError, match=message):
        lth.Lottery(arguments.pop("model"), **arguments)
    assert not (tmp_path / "out").exists()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError, match="cpu"):
        lth.Lottery(network(), train=print, evaluate=len, backend="cpu")


@pytest.mark.parametrize(
    ("gives", "message"),
    [("0.5x", "evaluate: got '0.5x', expected a number"), (math.nan, r"evaluate: got nan in round 0 \(ticket\)")],
)
def test_an_evaluation_that_gives_no_number_is_refused(train: Any, gives: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lth.Lottery(network(), train=train, evaluate=lambda model: gives).run()


@pytest.mark.parametrize("shares", ["the module", "the parameter"])
def test_shared_weights_have_one_mask_in_every_arm(shares: str) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), first if shares == "the module" else second, nn.Linear(8, 3))
    images, target = torch.randn(32, 8), torch.randint(3, (32,))

    def train(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), target).backward()
            optimizer.step()

    lottery = lth.Lottery(
        model, train=train, evaluate=lambda m: (m(images).argmax(1) == target).float().mean(), rounds=2, rate=0.5,
        controls=(name for name in ["random"]), backend="cpp",
    )  # fmt: skip
    record = lottery.run()
    assert [row.accuracy_random is None for row in record.rounds] == [True, False, False]
    trained = lottery.trained()
    assert trained[0].values is trained[2].values
    assert torch.equal(trained[0].mask, trained[2].mask)
    assert trained[0].sparsity == 0.75


def test_it_can_be_played_again(train: Any, evaluate: Any) -> None:
    lottery = lth.Lottery(network(), train=train, evaluate=evaluate, rounds=1, backend="cpp")
    assert rows(lottery.run()) == rows(lottery.run())


def test_before_a_round_is_over_there_is_nothing_to_give(train: Any, evaluate: Any) -> None:
    lottery = lth.Lottery(network(), train=train, evaluate=evaluate)
    with pytest.raises(InputError, match="there is no ticket of round None: 0 rounds are over"):
        lottery.ticket()
    with pytest.raises(InputError, match="nothing was trained yet"):
        lottery.trained()
