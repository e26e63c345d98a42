"""A ticket on another network: which layer stands for which, and what becomes of its mask and its weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.lottery.mapping import MappedTicket, mapped
from lth_sparse.nn.masks import Masks, prunable
from lth_sparse.storage.ticket import Ticket
from lth_sparse.system.errors import InputError


def ticket_of(model: nn.Module, seed: int = 0) -> Ticket:
    """Half of each layer, of weights that no other network has."""
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {n: torch.rand(w.shape, generator=generator) < 0.5 for n, w in prunable(model).items()}
    weights = {name: value + 1 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    for name, mask in masks.items():
        weights[f"{name}.weight" if name else "weight"] = weights[f"{name}.weight" if name else "weight"] * mask
    return Ticket(masks, weights, None, {})


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    return models.build(models.Network(name, shape, classes), seed=0)


def onto(source: nn.Module, target: nn.Module) -> tuple[Ticket, MappedTicket]:
    ticket = ticket_of(source)
    return ticket, mapped(ticket, target)


def how(found: MappedTicket) -> dict[str, tuple[str, str]]:
    return {each.layer: (each.source, each.how) for each in found.layers}


@pytest.mark.parametrize("name", ["small", "conv4", "resnet20", "wrn-22-2", "vgg16", "network", "resnet50"])
def test_on_its_own_network_a_ticket_is_what_it_was(name: str) -> None:
    ticket, found = onto(build(name), build(name))
    assert all(torch.equal(found.masks[layer], mask) for layer, mask in ticket.masks.items())
    assert found.weights.keys() == ticket.weights.keys()
    assert all(torch.equal(found.weights[entry], value) for entry, value in ticket.weights.items())
    assert {text for _, text in how(found).values()} == {"as it is"}


def test_a_head_for_other_classes_is_new_and_all_else_the_tickets() -> None:
    ticket, found = onto(build("conv2"), build("conv2", classes=7))
    assert found.masks["output"].shape == (7, 256)
    assert found.masks["output"].all()
    assert how(found)["output"] == ("", "whole: 7 classes, the ticket's are 10")
    assert not {entry for entry in found.weights if entry.startswith("output")}
    assert torch.equal(found.masks["fc1"], ticket.masks["fc1"])
    assert {"fc1.weight", "fc1.bias", "conv1a.weight"} <= found.weights.keys()


@pytest.mark.parametrize(("channels", "others"), [(1, 3), (3, 1)])
def test_images_of_other_channels_repeat_or_leave_out_those_of_the_first_layer(channels: int, others: int) -> None:
    ticket, found = onto(build("conv2", (channels, 16, 16)), build("conv2", (others, 16, 16)))
    for channel in range(others):
        assert torch.equal(found.masks["conv1a"][:, channel], ticket.masks["conv1a"][:, channel % channels])
    assert "conv1a.weight" not in found.weights
    assert "conv1b.weight" in found.weights


class Wide(nn.Sequential):
    """A convolution, and a linear layer on its flattened output, both as wide as they are told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module("first", nn.Conv2d(2, width, 3))
        self.add_module("flatten", nn.Flatten())
        self.add_module("hidden", nn.Linear(4 * width, width))
        self.add_module("output", nn.Linear(width, 5))


@pytest.mark.parametrize(("narrow", "wide"), [(3, 8), (8, 3), (4, 12)])
def test_channels_of_another_width_are_the_tickets_in_turn(narrow: int, wide: int) -> None:
    ticket, found = onto(Wide(narrow), Wide(wide))
    for name in ("first", "hidden", "output"):
        mask, given = found.masks[name], ticket.masks[name]
        for o in range(mask.shape[0]):
            for i in range(mask.shape[1]):
                assert torch.equal(mask[o, i], given[o % given.shape[0], i % given.shape[1]]), (name, o, i)
    # The pixel of a flattened channel stays that pixel: 4 pixels a channel on either side.
    for channel in range(wide):
        of_channel = found.masks["hidden"][0, 4 * channel : 4 * channel + 4]
        assert torch.equal(of_channel, ticket.masks["hidden"][0, 4 * (channel % narrow) :][:4])
    assert not found.weights
    assert how(found)["hidden"][1].startswith("channels of ")


def stage(number: int, blocks: int) -> list[str]:
    return [f"blocks.{number * blocks + block}" for block in range(blocks)]


@pytest.mark.parametrize(
    ("source", "target", "of"),
    [("resnet20", "resnet32", {3: 1, 4: 2}), ("resnet32", "resnet20", {})],
)
def test_a_stage_of_another_depth_repeats_or_leaves_out_blocks(source: str, target: str, of: dict[int, int]) -> None:
    theirs, ours = ({"resnet20": 3, "resnet32": 5}[name] for name in (source, target))
    ticket, found = onto(build(source), build(target))
    for number in range(3):
        for block, name in enumerate(stage(number, ours)):
            other = f"blocks.{number * theirs + of.get(block, block)}"
            for layer in ("conv1", "conv2"):
                assert how(found)[f"{name}.{layer}"][0] == f"{other}.{layer}"
                assert torch.equal(found.masks[f"{name}.{layer}"], ticket.masks[f"{other}.{layer}"])
                taken = f"{name}.{layer}.weight" in found.weights
                assert taken == (block not in of)
                if taken:
                    assert torch.equal(
                        found.weights[f"{name}.{layer}.weight"], ticket.weights[f"{other}.{layer}.weight"]
                    )
    assert how(found)[f"blocks.{ours}.shortcut.0"][0] == f"blocks.{theirs}.shortcut.0"
    # BatchNorm of another depth is another network's.
    assert not [entry for entry in found.weights if "norm" in entry]


def test_torchvisions_stages_are_followed_too() -> None:
    torchvision = pytest.importorskip("torchvision")
    ticket, found = onto(torchvision.models.resnet18(num_classes=5), torchvision.models.resnet34(num_classes=5))
    assert how(found)["layer3.5.conv2"] == ("layer3.1.conv2", "another block's")
    assert how(found)["layer3.1.conv2"] == ("layer3.1.conv2", "as it is")
    assert how(found)["layer2.0.downsample.0"] == ("layer2.0.downsample.0", "as it is")
    assert torch.equal(found.masks["layer1.2.conv1"], ticket.masks["layer1.1.conv1"])


def test_layers_numbered_within_a_stage_are_repeated_too() -> None:
    _, found = onto(build("vgg16"), build("vgg19"))
    assert how(found)["conv3_4"] == ("conv3_2", "another block's")
    assert how(found)["conv3_3"] == ("conv3_3", "as it is")
    _, found = onto(build("vgg19"), build("vgg16"))
    assert {text for _, text in how(found).values()} == {"as it is"}


def test_a_layer_that_the_ticket_has_not_stays_whole() -> None:
    _, found = onto(build("conv2", (3, 16, 16)), build("conv4", (3, 16, 16)))
    assert how(found)["conv2a"] == ("", "whole: the ticket has no such layer")
    assert found.masks["conv2a"].all()
    assert how(found)["conv1b"] == ("conv1b", "as it is")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Conv2d(1, 2, 5)),
         '--ticket: its layer "0" has a weight of 2x1x3x3, layer "0" one of 2x1x5x5: expected kernels of one size'),
        (nn.Sequential(nn.Conv2d(1, 2, 1)), nn.Sequential(nn.Linear(1, 2)),
         '--ticket: its layer "0" has a weight of 2x1x1x1, layer "0" one of 2x1: expected kernels of one size'),
        (build("conv2"), build("resnet20"),
         "--ticket: it has no layer for any of the model's but its head: its layers are conv1a, conv1b"),
        (build("resnet20"), nn.ModuleDict({"conv": nn.Conv2d(3, 16, 3), "blocks": nn.ModuleList([
            nn.ModuleDict({"conv1": nn.Conv2d(16, 16, 3)})])}),
         '--ticket: "blocks." has 3 stages in the ticket and 1 in the model: expected as many'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(source: nn.Module, target: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        onto(source, target)


def test_nothing_of_the_ticket_is_shared_with_it() -> None:
    ticket, found = onto(build("conv2"), build("conv2"))
    found.masks["conv1a"].logical_not_()
    assert not torch.equal(found.masks["conv1a"], ticket.masks["conv1a"])


@pytest.mark.parametrize(
    ("source", "target", "layer"),
    [
        (build("lenet-300-100", (1, 8, 8)), build("lenet-300-100", (1, 12, 12)), "fc1"),
        (build("lenet-300-100", (1, 28, 28)), build("lenet-300-100", (3, 8, 8)), "fc1"),
        (build("conv2", (3, 16, 16)), build("conv2", (3, 12, 12)), "fc1"),
    ],
)
def test_on_images_of_another_size_the_layer_of_their_pixels_stays_whole(
    source: nn.Module, target: nn.Module, layer: str
) -> None:
    _, found = onto(source, target)
    assert found.masks[layer].all()
    assert how(found)[layer][1].startswith("whole: ")
    assert "flattened inputs" in how(found)[layer][1]
    others = [each for each in found.layers if each.layer != layer]
    assert {each.how for each in others} == {"as it is"}
