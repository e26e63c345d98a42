import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.nn.masks import Masks, prunable
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket import pack, unpack
from lth_sparse.system.errors import InputError


def network(name: str) -> tuple[models.Network, nn.Module, Masks]:
    described = models.Network(name, (1, 16, 16), 10)
    model = models.build(described, seed=3)
    masks = {layer: torch.rand(weight.shape) < 0.2 for layer, weight in prunable(model).items()}
    return described, model, masks


@pytest.mark.alone  # Hypothesis limits the time of an example, unless CI is set.
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=4), density=st.floats(0, 1))
def test_masks_survive_packing(shape: list[int], density: float) -> None:
    mask = torch.rand(shape) < density
    bits = pack(mask)
    assert bits.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, tuple(shape)), mask)


def test_bits_are_in_row_major_order_most_significant_first() -> None:
    assert pack(torch.tensor([[True, False, False], [False, False, False], [False, True, True]])).tolist() == [
        0b10000001,
        0b10000000,
    ]


@pytest.mark.parametrize("name", ["small", "resnet20", "lenet-300-100"])
def test_a_ticket_gives_back_its_model_bit_for_bit(tmp_path: Path, name: str) -> None:
    described, model, masks = network(name)
    lth.save_ticket(tmp_path / "t.safetensors", model, masks, network=described, metadata={"accuracy": 0.5})
    loaded = lth.load_ticket(tmp_path / "t.safetensors")
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for entry, value in loaded.state_dict().items():
        layer = entry.removesuffix(".weight")
        wanted = expected[entry] * masks[layer] if layer in masks else expected[entry]
        assert torch.equal(value, wanted)
    assert all(torch.equal(loaded.ticket.masks[layer], mask) for layer, mask in masks.items())
    assert loaded.ticket.metadata["accuracy"] == 0.5


def test_a_live_weight_that_is_zero_stays_alive(tmp_path: Path) -> None:
    described, model, masks = network("small")
    masks["output"][0, 0] = True
    model.get_submodule("output").weight.data[0, 0] = 0  # type: ignore[union-attr, index]
    lth.save_ticket(tmp_path / "t", model, masks, network=described)
    assert lth.read_ticket(tmp_path / "t").masks["output"][0, 0]


def test_a_ticket_is_as_small_as_its_mask_and_its_live_weights(tmp_path: Path) -> None:
    described = models.Network("conv4", (3, 32, 32), 10)
    model = models.build(described, seed=0)
    masks = {layer: torch.rand(weight.shape) < 0.02 for layer, weight in prunable(model).items()}
    lth.save_ticket(tmp_path / "t", model, masks, network=described)
    weights, live = 2_425_024, sum(int(mask.sum()) for mask in masks.values())
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    assert (tmp_path / "t").stat().st_size < weights / 8 + 4 * (live + biases) + 4000
    assert (tmp_path / "t").stat().st_size < 4 * weights / 18


def test_any_safetensors_reader_can_open_a_ticket(tmp_path: Path) -> None:
    described, model, masks = network("small")
    lth.save_ticket(tmp_path / "t", model, masks, network=described)
    with safe_open(tmp_path / "t", "pt") as file:
        metadata = json.loads(file.metadata()["lth_sparse"])
        assert metadata["network"] == {"name": "small", "input_shape": [1, 16, 16], "classes": 10}
        assert len(metadata["sha256"]) == len(metadata["mask_sha256"]) == 64
        assert file.get_tensor("values/fc1").shape == (int(masks["fc1"].sum()),)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    masks = {"0": torch.rand(4, 5) < 0.5}
    lth.save_ticket(tmp_path / "t", model, masks)
    with pytest.raises(InputError, match="does not name a network"):
        lth.load_ticket(tmp_path / "t")
    loaded = lth.load_ticket(tmp_path / "t", nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert torch.equal(loaded.state_dict()["0.weight"], model[0].weight * masks["0"])
    with pytest.raises(InputError, match="does not fit the model"):
        lth.load_ticket(tmp_path / "t", nn.Linear(5, 4))


def test_a_ticket_can_be_trained_sparse(tmp_path: Path) -> None:
    described, model, masks = network("small")
    lth.save_ticket(tmp_path / "t", model, masks, network=described)
    images = torch.randn(2, 1, 16, 16)
    loaded = lth.load_ticket(tmp_path / "t")
    expected = loaded(images)
    sparse = lth.sparsify(loaded, loaded.ticket.masks)
    torch.testing.assert_close(sparse(images), expected)


def test_the_bytes_are_those_of_the_first_version(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8 - number)
    masks = {"0": torch.arange(54).reshape(3, 2, 3, 3) % 3 == 0, "3": torch.arange(48).reshape(4, 12) % 3 == 0}
    metadata = {"accuracy": 0.5, "epochs": (1, 2), "nested": {"a": None}}
    lth.save_ticket(tmp_path / "t", model, masks, metadata=metadata)
    assert hashlib.sha256((tmp_path / "t").read_bytes()).hexdigest() == (
        "7812ccf0ca9129f78e801595ebd18fe3919e3adde891f5bdcfb940bb4bbbbf57"
    )


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    described, model, masks = network("small")
    path = tmp_path / "t.safetensors"
    lth.save_ticket(path, model, masks, network=described)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match=f"{path} is damaged"):
        lth.load_ticket(path)
    path.write_bytes(content[:-100] + bytes([content[-100] ^ 4]) + content[-99:])
    with pytest.raises(InputError, match=f"{path} is damaged"):
        lth.load_ticket(path)
    sealed.write(path, {"a": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="is not a ticket"):
        lth.load_ticket(path)
    with pytest.raises(FileNotFoundError):
        lth.load_ticket(tmp_path / "nothing")


def test_a_ticket_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Sealed, so not damaged, but made by hand: lengths that do not fit must not reach an index."""
    bits = pack(torch.ones(3, 3, dtype=torch.bool))
    for shape, tensors in (
        ([5, 4], {"mask/a": bits, "values/a": torch.ones(9)}),
        ([3, 3], {"mask/a": bits, "values/a": torch.ones(1)}),
        ([3, 3], {"mask/a": bits, "values/a": torch.ones(8)}),
        ([3, 3], {"mask/a": bits}),
        ([3, 3], {"mask/a": bits, "values/a": torch.ones(9), "rest/a.weight": torch.ones(3, 3)}),
        ([3, 3], {"mask/a": bits, "values/a": torch.ones(9, dtype=torch.uint16)}),
    ):
        sealed.write(tmp_path / "t", tensors, {"ticket_version": 1, "network": None, "shapes": {"a": shape}})
        with pytest.raises(InputError, match="not a whole ticket: layer 'a'"):
            lth.load_ticket(tmp_path / "t")


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4))
    model.add_module("2", nn.ReLU())
    for masks, message in (
        ({"1": torch.ones(4, 5, dtype=torch.bool)}, 'masks: got the unknown layer "1"'),
        (
            {"0": torch.ones(5, 4, dtype=torch.bool)},
            r'masks\["0"\]: got shape \(5, 4\), expected the weight\'s, \(4, 5\)',
        ),
        ({"0": torch.ones(4, 5)}, r'masks\["0"\]: got dtype torch.float32, .*: mask.bool\(\)$'),
        ({"0": np.ones((4, 5), bool)}, r'masks\["0"\]: got ndarray, .*: torch.as_tensor\(mask, dtype=torch.bool\)$'),
        ({"0": [[True] * 5] * 4}, r'masks\["0"\]: got list, expected a tensor of dtype torch.bool'),
        ({"0": torch.ones(4, 5).bool().to_sparse()}, r"got layout torch.sparse_coo, .*: mask.to_dense\(\)$"),
        ({"0": torch.ones(4, 5).bool().to_sparse_csr()}, r"got layout torch.sparse_csr, .*: mask.to_dense\(\)$"),
        ({0: torch.ones(4, 5).bool()}, "masks: got 0 for a name, expected a str"),
        (
            {"0.weight": torch.ones(4, 5).bool()},
            'got "0.weight", the name of a weight, expected that of its layer, "0"',
        ),
        ({model[0]: torch.ones(4, 5).bool()}, 'got a Linear for a name, expected that of its layer, "0"'),
        ({"1": torch.ones(4, 5).bool()}, 'got the unknown layer "1"'),
        ({"2": torch.ones(4, 5).bool()}, 'no prunable layer "2"; it has 0'),
        ([torch.ones(4, 5, dtype=torch.bool)], "masks: got a list"),
        ({"0": torch.ones(4, 5, dtype=torch.bool, device="meta")}, "without entries"),
    ):
        with pytest.raises(InputError, match=message):
            lth.save_ticket(tmp_path / "t", model, masks)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"model: got a OrderedDict, expected a torch.nn.Module"):
        lth.save_ticket(tmp_path / "t", model.state_dict(), {})  # type: ignore[arg-type]
    assert not (tmp_path / "t").exists()
