"""The ticket reader that stands in docs/file-formats.md reads tickets as `lth.read_ticket` does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.nn.masks import prunable
from lth_sparse.storage.ticket import VERSION

PAGE = Path(__file__).resolve().parents[2] / "docs/file-formats.md"
Read = Callable[[Path], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def read() -> Read:
    """The page's own code."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    code = next(block for block in blocks if "def read(" in block)
    assert "torch" not in re.findall(r"^import (\w+)", code, re.MULTILINE)
    found: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), found)
    return found["read"]  # type: ignore[no-any-return]


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand(weight.shape) < 0.3 for name, weight in prunable(model).items()}


@pytest.fixture(params=["resnet20", "float64", "a layer by itself"])
def ticket(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With BatchNorm and a scalar; without a network of ours; with sizes that do not fill a byte, and no name."""
    path = tmp_path / "ticket.safetensors"
    network = models.Network("resnet20", (3, 32, 32), 10) if request.param == "resnet20" else None
    model: nn.Module = nn.Sequential(nn.Linear(7, 3), nn.BatchNorm1d(3)).double()
    if network is not None:
        model = models.build(network, seed=0)
    elif request.param == "a layer by itself":
        model = nn.Linear(5, 3)
    lth.save_ticket(path, model, masks_of(model), network=network, metadata={"note": "na\u00efve", "loss": 1e-7})
    return path


def test_the_reader_of_the_page_reads_a_ticket(read: Read, ticket: Path) -> None:
    expected = lth.read_ticket(ticket)
    masks, weights, metadata = read(ticket)
    assert metadata == expected.metadata
    assert metadata["ticket_version"] == VERSION
    assert masks.keys() == expected.masks.keys()
    assert weights.keys() == expected.weights.keys()
    for name, mask in expected.masks.items():
        assert masks[name].dtype == np.bool_
        np.testing.assert_array_equal(masks[name], mask.numpy())
    for name, weight in expected.weights.items():
        assert weights[name].dtype == weight.numpy().dtype
        np.testing.assert_array_equal(weights[name], weight.numpy())


def test_it_refuses_a_damaged_one(read: Read, ticket: Path) -> None:
    content = bytearray(ticket.read_bytes())
    content[-1] ^= 1
    ticket.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        read(ticket)


def test_the_text_of_the_digest_is_that_of_the_file_without_the_member(ticket: Path) -> None:
    """As the page says to a reader whose JSON library would write it otherwise."""
    import hashlib
    import json

    content = ticket.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = header.pop("__metadata__")["lth_sparse"]
    written = json.loads(text)["sha256"]
    digest = hashlib.sha256(text.replace(f'"sha256": "{written}", ', "").encode())
    for name, entry in sorted(header.items()):
        start, end = entry["data_offsets"]
        dtype = {"F32": "float32", "F64": "float64", "I64": "int64", "U8": "uint8"}[entry["dtype"]]
        digest.update(f"{name} torch.{dtype} {tuple(entry['shape'])}\n".encode() + content[8 + size :][start:end])
    assert digest.hexdigest() == written
