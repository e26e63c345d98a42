"""The metadata of a ticket: what the maker may add, and what a reader refuses before it uses it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.nn.masks import prunable
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket_metadata import OWN_KEYS
from lth_sparse.system.errors import InputError


def save(path: Path, metadata: Any) -> dict[str, Any]:
    """A small ticket with this metadata, and its metadata as it is read back, without the format's own keys."""
    lth.save_ticket(path, nn.Linear(5, 4), {"": torch.rand(4, 5) < 0.5}, metadata=metadata)
    return {key: value for key, value in lth.read_ticket(path).metadata.items() if key not in OWN_KEYS}


def test_the_keys_that_the_format_writes_are_refused(tmp_path: Path) -> None:
    for key in OWN_KEYS:
        with pytest.raises(InputError, match=f"metadata: '{key}'"):
            save(tmp_path / "t", {key: "mine", "accuracy": 0.5})
    with pytest.raises(InputError, match="metadata: 'network', 'shapes'"):
        save(tmp_path / "t", {"shapes": {}, "network": None})
    assert not list(tmp_path.iterdir())


def test_own_keys_are_those_of_the_file(tmp_path: Path) -> None:
    lth.save_ticket(tmp_path / "t", nn.Linear(5, 4), {"": torch.rand(4, 5) < 0.5})
    assert {*lth.read_ticket(tmp_path / "t").metadata, "sha256"} == set(OWN_KEYS)


def test_numbers_of_torch_and_numpy_become_plain_ones(tmp_path: Path) -> None:
    metadata = {
        "loss": torch.tensor(0.25, requires_grad=True),
        "half": torch.tensor([1.5, 2], dtype=torch.bfloat16),
        "accuracy": np.float32(0.5),
        "epoch": np.int64(3),
        "done": np.bool_(True),
        "curve": np.arange(4).reshape(2, 2),
        "nested": [{"live": (torch.tensor(7), None)}],
    }
    assert save(tmp_path / "t", metadata) == {
        "loss": 0.25,
        "half": [1.5, 2.0],
        "accuracy": 0.5,
        "epoch": 3,
        "done": True,
        "curve": [[0, 1], [2, 3]],
        "nested": [{"live": [7, None]}],
    }


def test_keys_that_are_numbers_leave_a_file_that_can_be_read(tmp_path: Path) -> None:
    """As a number 10 comes after 2, as JSON's text before it: the seal is made of the text."""
    assert save(tmp_path / "t", {"by_round": {2: 0.6, 10: 0.7}, 3: "three", None: True}) == {
        "by_round": {"2": 0.6, "10": 0.7},
        "3": "three",
        "null": True,
    }
    with pytest.raises(InputError, match="metadata: two keys are '1' in JSON"):
        save(tmp_path / "t", {1: "a", "1": "b"})


def test_what_json_has_no_form_for_is_refused_in_one_sentence(tmp_path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for value, message in (
        (Path("a"), r"metadata\['note'\]: got a PosixPath, expected what JSON holds"),
        ({1, 2}, r"metadata\['note'\]: got a set"),
        ([object()], r"metadata\['note'\]\[0\]: got a object"),
        (torch.zeros(1001), r"metadata\['note'\]: got an array of 1001 numbers"),
        (torch.zeros(2, device="meta"), r"metadata\['note'\]: got a tensor on meta"),
        (torch.tensor(1j), r"metadata\['note'\]: got a complex"),
        (np.longdouble(1), r"metadata\['note'\]: got a longdouble"),
        ({(1, 2): 3}, r"metadata\['note'\]: got the key \(1, 2\), a tuple"),
        (circle, "holds itself"),
    ):
        with pytest.raises(InputError, match=message):
            save(tmp_path / "t", {"note": value})
    with pytest.raises(InputError, match="metadata: got a list"):
        save(tmp_path / "t", ["note"])
    assert not list(tmp_path.iterdir())


def test_a_network_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    model = nn.Linear(5, 4)
    for network, message in (
        ("small", r"network: got a str, expected lth_sparse.models.Network"),
        (models.Network("small", (1, 0, 16), 10), r"network: input_shape: got \[1, 0, 16\]"),
        (models.Network("small", (1, 16, 16), 0), "network: classes: got 0"),
    ):
        with pytest.raises(InputError, match=message):
            lth.save_ticket(tmp_path / "t", model, {}, network=network)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of a ticket of the network `small`."""
    network = models.Network("small", (1, 16, 16), 10)
    model = models.build(network, seed=0)
    path = tmp_path_factory.mktemp("ticket") / "t"
    masks = {layer: torch.rand(weight.shape) < 0.1 for layer, weight in prunable(model).items()}
    lth.save_ticket(path, model, masks, network=network)
    return sealed.read(path)


NETWORK = {"name": "small", "input_shape": [1, 16, 16], "classes": 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": []}, r"metadata 'shapes': got \[\]"),
        ({"shapes": {"fc1": 4}}, r"metadata 'shapes': layer 'fc1': got 4"),
        ({"shapes": {"fc1": [0, 4]}}, "metadata 'shapes': layer 'fc1'"),
        ({"shapes": {"fc1": [-1, -4]}}, "metadata 'shapes': layer 'fc1'"),
        ({"shapes": {"fc1": [2.0, 4]}}, "metadata 'shapes': layer 'fc1'"),
        ({"shapes": {"fc1": [True, 4]}}, "metadata 'shapes': layer 'fc1'"),
        ({"shapes": {"fc1": [2**30, 2**30, 2**30]}}, "layer 'fc1': a mask of shape"),
        ({"shapes": {}}, "mask/.* has no shape"),
        ({"ticket_version": [1]}, r"version \[1\]"),
        ({"ticket_version": True}, "version True"),
        ({"network": []}, r"metadata 'network': got \[\]"),
        ({"network": 0}, r"metadata 'network': got 0"),
        ({"network": {"name": "small"}}, "metadata 'network': got"),
        ({"network": {**NETWORK, "name": 3}}, "metadata 'network': name: got 3"),
        ({"network": {**NETWORK, "name": "smal"}}, "metadata 'network': .*did you mean \"small\""),
        ({"network": {**NETWORK, "input_shape": [16, 16]}}, "metadata 'network': input_shape"),
        ({"network": {**NETWORK, "input_shape": [1, 16, 10**9]}}, "metadata 'network': input_shape"),
        ({"network": {**NETWORK, "input_shape": [1, 2, 2]}}, "metadata 'network': .*at least"),
        ({"network": {**NETWORK, "classes": 10**12}}, "metadata 'network': classes"),
        ({"network": {**NETWORK, "classes": "10"}}, "metadata 'network': classes"),
        # Each within its bounds, and the weights still more than there could be memory for.
        ({"network": {"name": "lenet-300-100", "input_shape": [2**16] * 3, "classes": 2**20}}, "does not fit"),
    ],
)
def test_each_field_is_checked_before_it_is_used(
    tmp_path: Path, content: tuple[dict[str, torch.Tensor], dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    tensors, metadata = content
    sealed.write(tmp_path / "t", tensors, {**metadata, **changes})
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 't'))}.*{message}"):
        lth.load_ticket(tmp_path / "t")


def test_a_network_that_is_not_known_here_can_be_given(tmp_path: Path) -> None:
    tensors = {"rest/weight": torch.ones(4, 5), "rest/bias": torch.ones(4)}
    network = {"name": "theirs", "input_shape": [1, 1, 5], "classes": 4}
    sealed.write(tmp_path / "t", tensors, {"ticket_version": 1, "network": network, "shapes": {}})
    assert lth.read_ticket(tmp_path / "t").network == models.Network("theirs", (1, 1, 5), 4)
    loaded = lth.load_ticket(tmp_path / "t", nn.Linear(5, 4))
    assert torch.equal(loaded.weight, torch.ones(4, 5))  # type: ignore[arg-type]


def test_metadata_nested_without_end_is_damage(tmp_path: Path) -> None:
    """JSON's parser counts its depth on Python's stack."""
    text = '{"sha256": "", "a": ' + "[" * 200_000 + "]" * 200_000 + "}"
    (tmp_path / "t").write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {sealed.ENTRY: text}))
    with pytest.raises(InputError, match="is damaged"):
        lth.read_ticket(tmp_path / "t")


SIZES = st.one_of(st.integers(-1, 20), st.integers(), st.booleans(), st.floats(), st.text(max_size=3), st.none())
JSON = st.recursive(SIZES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "ticket_version": st.sampled_from([1, 1, 1, 2, True, "1"]) | JSON,
    "shapes": st.dictionaries(
        st.sampled_from(["conv1a", "fc1", "output", "nowhere", ""]), st.lists(SIZES, max_size=5) | JSON
    )
    | JSON,
    "network": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["small", "resnet20", "smal", ""]) | JSON,
            "input_shape": st.lists(SIZES, min_size=2, max_size=4) | st.just([1, 16, 16]) | JSON,
            "classes": st.just(10) | JSON,
        }
    )
    | JSON,
    "mask_sha256": JSON,
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none(), min_size=1).flatmap(
        lambda keys: st.fixed_dictionaries({key: FIELDS[key] for key in keys})
    )
)
@example(changes={"shapes": []})
@example(changes={"network": {**NETWORK, "classes": 10**15}})
def test_no_metadata_ends_in_another_error(
    tmp_path: Path, content: tuple[dict[str, torch.Tensor], dict[str, Any]], changes: dict[str, Any]
) -> None:
    """Loaded, or refused by an InputError that names the file."""
    tensors, metadata = content
    path = tmp_path / "t"
    sealed.write(path, tensors, copy.deepcopy({**metadata, **changes}))
    try:
        lth.load_ticket(path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
