"""The infer command: its figures belong to the network that it names, and what is wrong with a question is one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse import infer, models
from lth_sparse.inference import engine
from lth_sparse.latency import calls, profile
from lth_sparse.nn.masks import prunable
from tests.conftest import error_line

QUICK = ("--seconds", "0.05")
MODULE = """
from torch import nn

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(x.flatten(1) if x.sum() > 0 else -x.flatten(1))

def branches():
    return Branches()
"""


@pytest.fixture(autouse=True)
def threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As they were, and a module in the current directory."""
    before = torch.get_num_threads()
    (tmp_path / "my_networks.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)  # That of another file's tests.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command; gives exit status, standard output and standard error."""

    def called(*arguments: object) -> tuple[int, str, str]:
        status = infer.main([str(each) for each in arguments])
        return (status, *capsys.readouterr())

    return called


def test_percentiles_and_images_a_second_are_those_of_the_calls():
    found = calls.Calls("x", 4, [k / 1000 for k in range(1, 101)])
    assert found.percentile(50) == pytest.approx(50.5)
    assert found.percentile(99) == pytest.approx(99.01)
    assert found.images_a_second == pytest.approx(4 * 100 / 5.05)
    assert calls.Calls("x", 1, [0.25]).percentile(95) == 250


def test_calls_come_in_turn_and_warm_up_does_not_count():
    order: list[str] = []
    networks = {name: lambda x, name=name: order.append(name) for name in "ab"}
    found = calls.in_turn(networks, torch.ones(3, 2), 0.0, before=1)
    turns = list(zip(*[iter(order)] * 4, strict=True))
    assert set(turns) == {("a", "a", "b", "b"), ("b", "b", "a", "a")}
    assert len(turns) == 2 * calls.FEWEST
    assert [(each.name, each.images, len(each.seconds)) for each in found] == [("a", 3, 5), ("b", 3, 5)]


def test_how_far_off_outputs_are():
    expected = torch.tensor([1.0, -4.0])
    assert calls.furthest_off(torch.tensor([1.0, -4.0]), expected) == 0
    assert calls.furthest_off((torch.tensor([1.5, -4.0]), expected), (expected, expected)) == 0.125
    assert calls.furthest_off(torch.tensor([torch.nan, -4.0]), expected) == float("inf")


@pytest.mark.skipif(bool(engine.refuses()), reason=engine.refuses())
def test_a_network_with_its_profile(call, tmp_path):
    options = ("--model", "resnet20", "--batch-size", 2, "--threads", 1, "--profile", *QUICK)
    status, said, heard = call(*options, "--json", tmp_path / "found.json", "--plot", tmp_path / "profile.png")
    assert status == 0, heard
    assert "resnet20, 90.0% pruned, batch 2 of (3, 32, 32), float32" in said
    assert "dense PyTorch's median call takes" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["batch_size"], found["threads"]) == (2, 1)
    assert 0 <= found["furthest_off"] < 1e-5
    assert [row["name"] for row in found["calls"]] == [infer.OURS, infer.DENSE]
    for row in found["calls"]:
        assert 0 < row["p50_milliseconds"] <= row["p95_milliseconds"] <= row["p99_milliseconds"]
    operations = {row["name"]: row for row in found["operations"]}
    convolutions = [row for row in operations.values() if row["gigaflops"]]
    assert len(convolutions) == 21  # Its first, two in each of nine blocks, and two shortcuts.
    assert {row["kernel"] for row in convolutions} == {"engine"}
    # 2 for each live weight and pixel of both images.
    row = operations["blocks_0_conv1"]
    live = round(row["gigaflops"] * 1e9 * row["milliseconds"] / 1000 / (2 * 2 * 32 * 32))
    assert live == pytest.approx(0.1 * 16 * 16 * 9, abs=2)
    assert all(name in said for name in operations)
    assert (tmp_path / "profile.png").read_bytes()[:4] == b"\x89PNG"


def test_a_ticket(call, tmp_path):
    model = models.build(models.Network("small", (1, 8, 8), 10), seed=0)
    masks = {name: torch.rand_like(weight) < 0.2 for name, weight in prunable(model).items()}
    lth.save_ticket(
        tmp_path / "ticket.safetensors", lth.sparsify(model, masks), network=models.Network("small", (1, 8, 8), 10)
    )
    status, said, heard = call("--ticket", tmp_path / "ticket.safetensors", *QUICK)
    assert status == 0, heard
    assert "batch 1 of (1, 8, 8)" in said


def test_outputs_that_differ_are_status_1(call, monkeypatch):
    monkeypatch.setattr(infer, "for_inference", lambda model, **_: nn.Sequential(lth.for_inference(model), Wrong()))
    assert call("--model", "small", *QUICK)[0] == 1


class Wrong(nn.Module):
    def forward(self, x):
        return x * 1.01


def test_a_network_that_cannot_be_followed_has_no_profile(call):
    status, said, heard = call("--model", "my_networks:branches", "--input-shape", "12", "--profile", *QUICK)
    assert status == 0
    assert "no profile: the network could not be followed" in heard
    assert "dense PyTorch's median call" in said
    assert profile.of_network(nn.ReLU(), torch.ones(1), 0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", "0"), "--batch-size 0: expected at least 1"),
        (("--threads", "-1"), "--threads -1: expected at least 1"),
        (("--seconds", "0"), "--seconds 0: expected more than 0"),
        (("--seconds", "nan"), "--seconds nan: expected more than 0"),
        (("--seed", str(2**63)), "expected a number of less than 2^63"),
        (("--sparsity", "1"), "--sparsity 1: expected fractions of at least 0 and below 1"),
        (("--model", "resnet02"), "resnet20"),
        (("--model", "torchvision:resnet50"), "the shape of its input is not known"),
        (("--ticket", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--json", ""), "expected the name of a file to write"),
        (("--plot", "."), "expected the name of a file to write"),
    ],
)
def test_bad_input_is_one_line(call, options, message):
    status, _, said = call(*options, *(() if "--seconds" in options else QUICK))
    assert status == 2
    assert message in error_line(said)
