"""Runs of networks that are not this package's, from the command line to the tickets, and of checkpoints."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lth_sparse as lth
from lth_sparse import verify
from tests.conftest import error_line, rows

Lottery = Callable[..., tuple[int, str]]

MODULE = """
import torch
from torch import nn

def net(input_shape, num_classes):
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * height * width, num_classes),
    )

def images(data_dir, count=40):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.rand(count, 1, 8, 8, generator=generator) / 2 + 0.5 * labels[:, None, None, None]
    part = (images * 255).round().byte(), labels
    return part, part

def wrong_head():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
"""
SHORT: tuple[object, ...] = (
    "--dataset", "digits", "--rounds", 1, "--iterations", 12, "--evaluate-every", 6, "--backend", "dense",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)


def test_a_network_of_yours_is_run_reported_and_its_tickets_load_again(
    lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, error = lottery(*SHORT, "--model", "own_nets:net", "--out", "run")
    assert status == 0, error
    info = json.loads(Path("run/config.json").read_text())
    assert info["config"]["model"] == info["network"]["name"] == "own_nets:net"
    assert info["network"]["weights"] == 4 * 9 + 256 * 10
    assert "own_nets:net on digits" in Path("run/report.html").read_text()
    ticket = Path("run/tickets/round-01.safetensors")
    assert lth.read_ticket(ticket).network == lth.models.Network("own_nets:net", (1, 8, 8), 10)
    model = lth.load_ticket(ticket)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert int((model[4].weight != 0).sum()) == int(model.ticket.masks["4"].sum()) < 2560
    monkeypatch.delitem(sys.modules, "own_nets")
    with pytest.raises(lth.system.errors.InputError, match="import own_nets first, if you trust it"):
        lth.load_ticket(ticket)
    assert "own_nets" not in sys.modules
    sys.path.remove(str(Path.cwd()))  # verify looks in the current directory, too.
    assert verify.main(["--ticket", str(ticket), "--model", "own_nets:net", "--steps", "1", "--batch-size", "2"]) == 0


def test_so_is_data_of_yours(lottery: Lottery) -> None:
    command = (*SHORT, "--dataset", "own_nets:images", "--model", "own_nets:net", "--batch-size", 8, "--out", "run")
    status, error = lottery(*command)
    assert status == 0, error
    assert {row["dataset"] for row in rows(Path("run"))} == {"own_nets:images"}
    assert "own_nets:net on own_nets:images" in Path("run/report.html").read_text()
    assert lottery(*command, "--resume")[0] == 0
    module = Path("own_nets.py")
    module.write_text(module.read_text().replace("manual_seed(0)", "manual_seed(11)"))
    del sys.modules["own_nets"]
    status, error = lottery(*command, "--resume")
    assert status == 2
    assert "the images (their SHA-256)" in error_line(error)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("own_nets:nets", "has no function 'nets', did you mean \"net\"?"),
        ("own_net:net", "'own_net' cannot be imported"),
        ("own_nets:wrong_head", r"gives \(2, 12\) for 2 images, expected \(2, 10\)"),
        ("torchvision:resnet81", 'did you mean "resnet18"?'),
        ("torchvision:resnet18", "takes images of 3 channels, these have 1"),
        ("resnet19", "torchvision:NAME, timm:NAME, module:function"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line_and_nothing_written(lottery: Lottery, model: str, message: str) -> None:
    status, error = lottery(*SHORT, "--model", model)
    assert status == 2
    assert re.search(message.replace("?", r"\?"), error_line(error)), error
    assert {path.name for path in Path.cwd().iterdir()} <= {"own_nets.py", "__pycache__"}


@pytest.mark.parametrize("model", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_networks_of_libraries_are_run_and_their_tickets_load(
    model: str, image_folder: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model.startswith("timm"):
        pytest.importorskip("timm")
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched"))
    given = ("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 10, "--image-size", 160)
    short = ("--rounds", 1, "--iterations", 2, "--controls", "none", "--backend", "cpp", "--learning-rate", 1e-4)
    status, error = lottery(*given, *short, "--model", model, "--out", "run")
    assert status == 0, error
    model_again = lth.load_ticket("run/tickets/round-01.safetensors")
    assert model_again.eval()(torch.zeros(1, 3, 160, 160)).shape == (1, 2)
    assert model_again.ticket.network.name == model


@pytest.mark.parametrize("model", ["own_nets:net"])
def test_dropout_is_drawn_alike_after_a_kill(tmp_path: Path, model: str, lottery: Lottery) -> None:
    command = (
        "--dataset", "digits", "--rounds", 1, "--iterations", 120, "--evaluate-every", 20, "--backend", "dense",
        "--controls", "none", "--model", model,
    )  # fmt: skip
    assert lottery(*command, "--out", "whole")[0] == 0
    started = subprocess.Popen([sys.executable, "-m", "lth_sparse.run", *map(str, command), "--out", "killed"])
    while not list(tmp_path.glob("killed/state/[0-9]*")):
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert lottery(*command, "--out", "killed", "--resume")[0] == 0
    assert rows(Path("killed"), without_times=True) == rows(Path("whole"), without_times=True)


def test_a_run_starts_from_a_checkpoint_and_resumes_with_the_same_file_only(lottery: Lottery) -> None:
    command = (*SHORT, "--model", "own_nets:net", "--out")
    assert lottery(*command, "first")[0] == 0
    trained = lth.load_ticket("first/tickets/round-00.safetensors")
    for parameter in trained.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    torch.save({"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}}, "dense.pt")
    status, error = lottery(*command, "second", "--checkpoint", "dense.pt")
    assert status == 0, error
    ticket = lth.read_ticket("second/tickets/round-00.safetensors")
    assert all(torch.equal(value, ticket.weights[name]) for name, value in trained.state_dict().items())
    info = json.loads(Path("second/config.json").read_text())
    assert len(info["network"]["checkpoint_sha256"]) == 64
    assert info["config"]["checkpoint"] == "dense.pt"
    assert info["network"]["checkpoint_sha256"] in Path("second/report.html").read_text()
    assert lottery(*command, "second", "--resume")[0] == 0
    torch.save(trained.state_dict(), "dense.pt")
    status, error = lottery(*command, "second", "--resume")
    assert status == 2
    assert "the checkpoint (its SHA-256) was" in error_line(error)


def test_a_checkpoint_that_does_not_fit_is_told_in_a_line_and_nothing_written(lottery: Lottery) -> None:
    torch.save({"0.weight": torch.ones(2, 2)}, "other.pt")
    status, error = lottery(*SHORT, "--checkpoint", "other.pt")
    assert status == 2
    assert "--checkpoint other.pt is not of this network: it lacks conv1a.weight" in error_line(error)
    assert not Path("runs").exists()
