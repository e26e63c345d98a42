"""The verify command: what is wrong is named, what is right passes, and what cannot be verified says why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse import models, verify
from lth_sparse.backends import registry
from lth_sparse.backends.base import Plan
from lth_sparse.backends.dense import DenseBackend
from lth_sparse.nn.masks import Masks, prunable
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.system import timing
from lth_sparse.verification.judgement import Judged
from lth_sparse.verification.plot import picture
from tests import conftest

MODEL = """
import torch
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 5),
    )

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv1d(1, 1, 2)

    def forward(self, x):
        return self.used(x)[:, :, 0]

def pruned():
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))
    torch.nn.utils.prune.random_unstructured(model[0], "weight", 0.75)
    return model

def frozen():
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))
    model[0].weight.requires_grad_(False)
    return model

def by_name():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(10, 3)

        def forward(self, x):
            return self.fc(input=x)

    return ByName()

def wide():
    return nn.Linear(3000, 256)

def layer():
    return nn.Linear(10, 3)

def not_a_number():
    model = nn.Linear(10, 3)
    model.bias.data[0] = torch.nan
    return model

def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x), x

    return Pair()

def raises():
    raise RuntimeError("no such weights")

def number():
    return 3

def hooked():
    model = nn.Linear(10, 3)
    torch.nn.utils.prune.random_unstructured(model, "weight", 0.5)
    model.bias.register_hook(lambda gradient: gradient)
    return model

def nothing_to_prune():
    return nn.Conv1d(1, 1, 2)
"""
SMALL = ("--model", "my_networks:small", "--input-shape", "2,7,7", "--batch-size", "4", "--steps", "3")


@pytest.fixture(autouse=True)
def own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current directory, and short timings."""
    (tmp_path / "my_networks.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    for name, value in {"WARM_UP_STEPS": 1, "FEWEST_STEPS": 2, "PATIENCE_SECONDS": 0.0}.items():
        monkeypatch.setattr(timing, name, value)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command; gives exit status, standard output and standard error."""

    def called(*arguments: object) -> tuple[int, str, str]:
        status = verify.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


class Slightly(DenseBackend):
    """Dense PyTorch, but for one operation that a subclass gets wrong."""

    name = "broken"


class WrongOutput(Slightly):
    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        return super().forward(x, values, plan, bias) * (1 + 1e-4)


class WrongGradInput(Slightly):
    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        return super().grad_input(grad_out, values, plan, input_shape) * (1 + 1e-4)


class WrongGradWeight(Slightly):
    """At one place only."""

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        gradient = super().grad_weight(x, grad_out, plan).clone()
        gradient[-1] += 1e-3 * gradient.abs().max()
        return gradient


class NotANumber(Slightly):
    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        gradient = super().grad_weight(x, grad_out, plan).clone()
        gradient[0] = torch.nan
        return gradient


class OneByOne(Slightly):
    """Right, but it adds one product after the other, in float32."""

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        weight = plan.pattern.scatter(values)
        output = torch.zeros(x.shape[0], weight.shape[0])
        for column in range(weight.shape[1]):
            output += x[:, column, None] * weight[:, column]
        return output if bias is None else output + bias


class Raises(Slightly):
    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        raise RuntimeError("out of\nregisters")


class WrongInTraining(Slightly):
    """Right at first, wrong from the 30th call on: only a training comes so far."""

    calls = 0

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        type(self).calls += 1
        return super().grad_weight(x, grad_out, plan) * (1 if self.calls < 30 else 3)


class OnlyLinear(Slightly):
    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        return spec.kind == "linear", "it is a convolution, and this backend is for linear layers"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Slightly]], None]:
    """Registers a backend as "broken"."""

    def register(backend: type[Slightly]) -> None:
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_unusable", dict(registry._unusable))
        registry.register("broken")(backend)

    return register


@pytest.mark.parametrize(
    ("backend", "operation"),
    [
        (WrongOutput, "forward"),
        (WrongGradInput, "grad_input"),
        (WrongGradWeight, "grad_weight"),
        (NotANumber, "grad_weight"),
    ],
)
def test_a_backend_that_is_slightly_wrong_is_named(
    call: Callable[..., tuple[int, str, str]],
    broken: Callable[[type[Slightly]], None],
    backend: type[Slightly],
    operation: str,
) -> None:
    broken(backend)
    status, out, error = call(*SMALL, "--backend", "dense,broken", "--json", "found.json")
    assert status == 1, error
    rows = json.loads(Path("found.json").read_text())["rows"]
    for row in rows:
        wrong = {name for name, judged in row["errors"].items() if not judged["holds"]}
        if row["backend"] == "dense":
            assert row["holds"]
        elif row["kind"] == "layer":
            assert (row["holds"], wrong) == (False, {operation}), row
            assert f"{row['part']} (broken, 89.9%): OUT OF BOUNDS: {operation}" in out.splitlines()[-1]


def test_the_order_of_additions_is_left_to_a_backend(
    call: Callable[..., tuple[int, str, str]], broken: Callable[[type[Slightly]], None]
) -> None:
    broken(OneByOne)
    status, out, _ = call(
        "--model", "my_networks:wide", "--input-shape", "3000", "--sparsity", "0.1", "--batch-size", 256, "--steps", 2,
        "--backend", "broken",
    )  # fmt: skip
    assert status == 0, out


def test_a_backend_that_raises_fails_and_the_others_are_verified(
    call: Callable[..., tuple[int, str, str]], broken: Callable[[type[Slightly]], None]
) -> None:
    broken(Raises)
    status, out, _ = call(*SMALL, "--backend", "broken,dense", "--json", "found.json")
    assert status == 1
    rows = json.loads(Path("found.json").read_text())["rows"]
    assert {(row["backend"], row["failed"]) for row in rows} == {
        ("broken", "RuntimeError: out of registers"),
        ("dense", ""),
    }
    assert "FAILED" in out


def test_a_training_that_goes_astray_is_seen(
    call: Callable[..., tuple[int, str, str]], broken: Callable[[type[Slightly]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(WrongInTraining)
    monkeypatch.setattr(WrongInTraining, "calls", 0)
    monkeypatch.setattr("lth_sparse.verification.rows.not_timed", lambda backend: "this test counts calls")
    status, out, _ = call(*SMALL, "--steps", "12", "--backend", "broken", "--json", "found.json")
    assert status == 1
    rows = json.loads(Path("found.json").read_text())["rows"]
    assert {row["kind"] for row in rows if not row["holds"]} == {"training"}
    assert "not timed: this test counts calls" in out


def test_a_layer_that_is_given_its_input_by_name(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, error = call("--model", "my_networks:by_name", "--input-shape", "10", "--steps", "2")
    assert status == 0, out + error
    assert "all of 3 rows are within their bounds" in out


def test_every_part_of_an_own_network_is_accounted_for(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, error = call(*SMALL, "--sparsity", "0.5,0.9", "--json", "found.json", "--plot", "found.png")
    assert status == 0, error
    found = json.loads(Path("found.json").read_text())
    assert [(row["part"], round(row["sparsity"], 1)) for row in found["rows"]] == [
        (part, sparsity) for sparsity in (0.5, 0.9) for part in ("0", "3", "6", "whole network", "training, 3 steps")
    ]
    for row in found["rows"]:
        operations = ["loss"] if row["kind"] == "training" else ["forward", "grad_input", "grad_weight"]
        assert list(row["errors"]) == operations
        assert (row["speedup"] is None) == (row["kind"] == "training")
    assert "all of 10 rows are within their bounds" in out
    assert found["command"].endswith("--plot found.png")
    assert "4: dropout is off" in error
    assert Path("found.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("default::UserWarning")
def test_what_a_backend_leaves_to_dense_says_so(
    call: Callable[..., tuple[int, str, str]], broken: Callable[[type[Slightly]], None]
) -> None:
    broken(OnlyLinear)
    status, _, error = call(*SMALL, "--backend", "broken", "--json", "found.json")
    assert (status, "warning: " in error) == (0, True)
    rows = {row["part"]: row for row in json.loads(Path("found.json").read_text())["rows"]}
    assert [rows[name]["computed_by"] for name in ("0", "3", "6", "whole network")] == [
        "dense", "dense", "broken", "dense|broken",
    ]  # fmt: skip
    assert rows["3"]["notes"] == ["it is a convolution, and this backend is for linear layers"]


def test_layers_that_are_not_called_or_stay_dense_are_named(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = call("--model", "my_networks:Odd", "--input-shape", "3,4", "--backend", "dense", "--steps", 2)
    assert status == 0
    assert "stays dense: other: Conv1d: only nn.Conv2d and nn.Linear can be sparse" in out
    assert "unused: not verified by itself: the network does not call it" in out


def test_a_network_that_is_pruned_already_keeps_its_masks(call: Callable[..., tuple[int, str, str]]) -> None:
    own = ("--model", "my_networks:pruned", "--input-shape", "10", "--backend", "dense", "--steps", 2)
    status, out, error = call(*own)
    assert status == 0, error
    assert "75.0% of the weights pruned" in out
    status, out, _ = call(*own, "--sparsity", "0.5")
    assert (status, "50.0% of the weights pruned" in out) == (0, True)


@pytest.mark.parametrize("network", ["frozen", "layer"])
def test_frozen_weights_and_a_single_layer_are_verified(
    call: Callable[..., tuple[int, str, str]], network: str
) -> None:
    status, out, error = call(
        "--model", f"my_networks:{network}", "--input-shape", "10", "--backend", "dense", "--steps", 2
    )
    assert status == 0, error
    assert ("the layer" in out) == (network == "layer")


def test_a_network_that_gives_nan_by_itself_is_not_passed(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = call("--model", "my_networks:not_a_number", "--input-shape", "10", "--backend", "dense")
    assert status == 1
    assert "the layer: forward: not finite in dense PyTorch either" in out


def test_all_stands_for_what_works_here(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_unusable", registry._unusable | {"triton": "no transistors"})
    status, out, _ = call(*SMALL, "--backend", "all", "--json", "found.json")
    assert status == 0
    found = json.loads(Path("found.json").read_text())
    assert "triton: no transistors" in found["not_verified"]
    assert "not verified: triton: no transistors" in out
    usable = {name for name, reason in lth.backends().items() if not reason}
    assert {row["backend"] for row in found["rows"]} == usable


def test_a_registered_network_in_bfloat16(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, error = call(
        "--model", "lenet-300-100", "--input-shape", "1,8,8", "--dtype", "bfloat16", "--backend", "auto,dense"
    )
    assert status == 0, out + error


def ticket(path: Path, network: models.Network | None, model: nn.Module) -> Masks:
    masks = {layer: torch.rand(weight.shape) < 0.25 for layer, weight in prunable(model).items()}
    lth.save_ticket(path, model, masks, network=network)
    return masks


def test_a_ticket(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    network = models.Network("lenet-300-100", (1, 6, 6), 4)
    masks = ticket(tmp_path / "ticket", network, models.build(network, 0))
    status, _, error = call("--ticket", "ticket", "--backend", "dense", "--steps", 2, "--json", "found.json")
    assert status == 0, error
    found = json.loads(Path("found.json").read_text())
    assert found["input_shape"] == [1, 6, 6]
    live = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert found["rows"][0]["sparsity"] == pytest.approx(1 - live)


def test_a_ticket_of_an_own_network(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))
    ticket(tmp_path / "ticket", None, model)
    (tmp_path / "my_networks.py").write_text(MODEL.replace("torch.nn.utils.prune.random", "lambda *_: 0 #"))
    status, _, error = call(
        "--ticket", "ticket", "--model", "my_networks:pruned", "--input-shape", "10", "--backend", "dense"
    )
    assert status == 0, error
    status, _, error = call("--ticket", "ticket")
    assert (status, "does not name a network" in conftest.error_line(error)) == (2, True)


OWN = ("--model", "my_networks:small")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--modle", "conv4"), "did you mean"),
        (("--model", "conv5"), "did you mean"),
        (("--model", "my_networks:hooked", "--input-shape", "10"), 'a hook on its parameter "bias"'),
        (("--model", "conv4", "--input-shape", "3,2,2"), "of at least"),
        (("--model", "conv4", "--input-shape", "3,x"), "expected sizes such as 3,32,32"),
        (OWN, "--input-shape"),
        ((*OWN, "--input-shape", "0,3"), "at least 1"),
        ((*OWN, "--input-shape", "5,7,7"), "does not take an input of shape (32, 5, 7, 7)"),
        (("--model", "no_such_module:f", "--input-shape", "3"), "ModuleNotFoundError"),
        (("--model", "my_networks:large", "--input-shape", "3"), "has no function 'large'"),
        (("--model", "my_networks:raises", "--input-shape", "3"), "no such weights"),
        (("--model", "my_networks:number", "--input-shape", "3"), "got int"),
        (("--model", "my_networks:pair", "--input-shape", "4"), "one tensor of real numbers"),
        (("--model", "my_networks:nothing_to_prune", "--input-shape", "1,3"), "nothing in it can be sparse"),
        (("--sparsity", "1"), "below 1"),
        (("--sparsity", "nan"), "below 1"),
        (("--sparsity", "much"), "expected fractions"),
        (("--sparsity", ""), "--sparsity is empty"),
        (("--backend", "cpq"), 'did you mean "cpp"'),
        (("--backend", ""), "--backend is empty"),
        (("--device", "tpu"), "expected auto, cpu, cuda"),
        (("--dtype", "int8"), "expected float32"),
        (("--batch-size", "0"), "expected at least 1"),
        (("--steps", "-1"), "expected at least 0"),
        (("--json", "."), "the name of a file"),
        (("--ticket", "missing"), "missing"),
        (("--ticket", "my_networks.py"), "my_networks.py"),
        (("--ticket", "my_networks.py", "--sparsity", "0.5"), "has its own masks"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line(
    call: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], said: str
) -> None:
    status, _, error = call(*arguments)
    assert status == 2
    assert said in conftest.error_line(error)


def test_what_is_not_a_number_never_holds() -> None:
    nan = float("nan")
    assert not any(judged.holds for judged in (Judged(nan, 1.0), Judged(0.0, nan), Judged(0.0, float("inf"))))
    assert Judged(1.0, 1.0).holds


def test_the_picture_takes_rows_without_times_and_errors() -> None:
    row = verify.Row("x", 0.9, "cpp", "fc", "layer")
    assert len(picture([row, verify.Row("x", 0.9, "cpp", "out", "layer", failed="no")], "x").axes) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--seed", 2**63), "expected a number of less than 2^63"),
        (("--input-shape", f"{2**31},8,8"), "expected sizes of at least 1, and less than 2^31"),
    ],
)
def test_numbers_that_no_machine_has_are_refused(given, sentence, capsys):
    from lth_sparse import verify as command

    assert command.main([*map(str, given), "--steps", "0"]) == 2
    assert sentence in capsys.readouterr().err
