"""Dense weights from files that other programs wrote: taken whole, or refused by layer and shape."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lth_sparse.storage import checkpoint
from lth_sparse.system.errors import InputError


def network(outputs: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, outputs))


def load(path: Path, into: nn.Module) -> str:
    weights, sha256 = checkpoint.read(path)
    checkpoint.put_into(into, weights, "FILE")
    return sha256


State = dict[str, Tensor]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.7},
        lambda state: {"model": state, "optimizer": {"state": {}}},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
        lambda state: {name: value.double() if value.is_floating_point() else value for name, value in state.items()},
    ],
    ids=["plain", "state_dict", "model", "model_state_dict", "DDP", "Lightning, compiled", "old BatchNorm", "float64"],
)
def test_a_state_dict_is_found_in_what_programs_save(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    there, here = network(seed=1), network(seed=2)
    there[1].running_mean.fill_(0.3)
    torch.save(wrap(there.state_dict()), tmp_path / "file.pt")
    sha256 = load(tmp_path / "file.pt", here)
    assert all(torch.equal(value, here.state_dict()[name]) for name, value in there.state_dict().items())
    assert sha256 == hashlib.sha256((tmp_path / "file.pt").read_bytes()).hexdigest()
    assert here[0].weight.dtype == torch.float32


def test_safetensors_too(tmp_path: Path) -> None:
    there, here = network(seed=1), network(seed=2)
    safetensors.torch.save_file(there.state_dict(), tmp_path / "file.safetensors")
    load(tmp_path / "file.safetensors", here)
    assert torch.equal(there[0].weight, here[0].weight)


def test_no_code_of_the_file_runs(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"whole.pt cannot be read: expected a state dict, .* no other Python objects"):
        checkpoint.read(tmp_path / "whole.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lr": 0.1}, "holds lr beside tensors"),
        ([torch.ones(1)], "holds a list; expected a state dict"),
        ({}, "expected a state dict"),
        (b"not a file of torch", "cannot be read"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        checkpoint.read(path)
    with pytest.raises(InputError, match=r"--checkpoint .*missing.pt: No such file"):
        checkpoint.read(tmp_path / "missing.pt")


def changed(**changes: Tensor | None) -> State:
    state = network().state_dict()
    for name, value in changes.items():
        state.pop(name.replace("_", ".", 1), None)
        if value is not None:
            state[name.replace("_", ".", 1)] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (network(7).state_dict(), "its head is for 7 classes, the data set has 4 (3.weight is [7, 12] there and [4,"),
        (changed(**{"0_weight": torch.ones(3, 3, 3, 3)}), "0.weight is [3, 3, 3, 3] there and [3, 1, 3, 3] here"),
        (changed(**{"0_weight": None}), "is not of this network: it lacks 0.weight"),
        (changed(**{"9_weight": torch.ones(2)}), "it has 9.weight, which this network has not"),
        (changed(**{"0_weight": torch.full((3, 1, 3, 3), torch.nan)}), "not finite in 0.weight"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(state: State, message: str) -> None:
    here = network(seed=5)
    before = here[3].weight.clone()
    with pytest.raises(InputError, match=re.escape(message)):
        checkpoint.put_into(here, state, "FILE")
    assert torch.equal(before, here[3].weight)
