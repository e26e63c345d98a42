"""Tickets of open_lth (Frankle's framework for the lottery ticket papers), read from the files of its runs.

A run of it leaves `lottery_HASH/replicate_R/level_L/main/` with `mask.pth`, {name of a weight: 0 or 1, int32}, and
`model_epE_itI.pth`, state dicts of the level's network: where its training began, the rewound weights, and its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.nn.masks import Masks
from lth_sparse.storage.ticket import Ticket
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

_MASKS = "mask.pth"


def read_open_lth(
    folder: str | PathLike[str], network: str | None = None, *, level: int | None = None, step: str | None = None
) -> Ticket:
    """The ticket that a run of open_lth left in `folder`, for `load_ticket`.

    folder: the one with `mask.pth`, such as `lottery_HASH/replicate_1/level_3/main`, or a replicate's, and `level`.
    network: the network here that it is of: "resnet20" for open_lth's cifar_resnet_20, "vgg16" and "vgg19" for
    cifar_vgg_16 and cifar_vgg_19, "lenet-300-100" for mnist_lenet_300_100. Names become those that it has here. VGG's
    convolutions have biases there, and none here: BatchNorm's running means take them over, so that outputs are equal
    to rounding, in training too, where they do not depend on them. None: names stay as they are, for a model of your
    own.
    step: such as "ep160_it0", of `model_ep160_it0.pth` (default: the first one, where the level's training began).

    Pruned weights are exactly 0. Files are read with weights_only: no code in them is run.

    Raises InputError for files that are not those of open_lth, or do not fit the network, OSError for one that cannot
    be read.
    """
    folder = _folder_of(Path(folder), level)
    file = _weights_file(folder, step)
    weights, given = _load(file), _load(folder / _MASKS)
    masks: Masks = {}
    for name, mask in given.items():
        weight, layer = weights.get(name), name.removesuffix(".weight")
        if weight is None or weight.shape != mask.shape or layer == name:
            found = f"shape {tuple(weight.shape)}" if weight is not None else "no such weight"
            raise InputError(f"{folder}: {_MASKS} has {name!r} of shape {tuple(mask.shape)}, {file.name} has {found}")
        if not ((mask == 0) | (mask == 1)).all():
            raise InputError(f"{folder / _MASKS}: {name!r}: got other numbers than 0 and 1, expected a mask")
        masks[layer] = mask != 0
    for layer, mask in masks.items():
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"].masked_fill(~mask, 0)
    built = None
    if network is not None:
        built, names = _renamed(folder, network, weights)
        masks = {names[layer]: mask for layer, mask in masks.items()}
    return Ticket(masks, weights, built, {"open_lth": file.name})


def _folder_of(folder: Path, level: int | None) -> Path:
    """The one with the files."""
    levels = sorted(int(each.name[6:]) for each in folder.glob("level_*") if each.name[6:].isdigit())
    if level is not None and level not in levels:
        raise InputError(f"level: got {level}, but {folder} has {_listed('level', levels)}")
    if level is None and levels:
        raise InputError(f"level: got none, but {folder} has {_listed('level', levels)}: choose one")
    of_level = folder if level is None else folder / f"level_{level}"
    for place in (of_level, of_level / "main"):
        if (place / _MASKS).is_file():
            return place
    raise InputError(f"{folder} is no folder of open_lth: it has neither {_MASKS} nor folders level_0, level_1, ...")


def _weights_file(folder: Path, step: str | None) -> Path:
    found = {each.stem.removeprefix("model_"): each for each in folder.glob("model*.pth")}
    steps = sorted(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    if not steps or (step is not None and step not in found):
        wanted = f"model_{step}.pth" if step else "model_ep0_it0.pth or another step's"
        raise InputError(f"{folder}: expected {wanted}, it has {_listed('the step', steps)}")
    return found[step or steps[0]]


def _listed(what: str, found: list[Any]) -> str:
    return f"{what}{'s'[: len(found) > 1]} {', '.join(map(str, found))}" if found else f"no {what.split()[-1]}"


def _load(file: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # Whatever it raises for a file of another kind.
        raise InputError(f"{file} is no file of tensors: {(str(error).splitlines() or [''])[0]}") from error
    if not isinstance(found, Mapping) or not all(isinstance(each, Tensor) for each in found.values()):
        raise InputError(f"{file}: got a {type(found).__name__}, expected a dictionary of tensors by their names")
    return dict(found)


# open_lth's names of layers -> ours, in its networks' own order.


def _resnet(layers: list[str], _: nn.Module) -> dict[str, str]:
    """conv, bn, blocks.3.conv1, blocks.3.bn1, blocks.3.shortcut.0, fc: bn is norm here, and fc output."""
    return {layer: re.sub(r"\bbn(\d?)$", r"norm\1", layer).replace("fc", "output") for layer in layers}


def _vgg(layers: list[str], ours: nn.Module) -> dict[str, str]:
    """layers.4.conv and layers.4.bn, with the pools counted in; ours are conv2_1 and norm2_1, a stage and a place."""
    names = {"fc": "output"}
    for theirs, kind in (("conv", nn.Conv2d), ("bn", nn.BatchNorm2d)):
        numbered = [layer for layer in layers if re.fullmatch(rf"layers\.\d+\.{theirs}", layer)]
        numbered.sort(key=lambda layer: int(layer.split(".")[1]))
        # As many as there are on both sides: whatever is left over is named later.
        names |= dict(
            zip(numbered, (name for name, each in ours.named_modules() if isinstance(each, kind)), strict=False)
        )
    return {layer: names.get(layer, layer) for layer in layers}


def _lenet(layers: list[str], _: nn.Module) -> dict[str, str]:
    """fc_layers.0, fc_layers.1, fc; ours are fc1, fc2, output."""
    numbered = {f"fc_layers.{place}": f"fc{place + 1}" for place in range(len(layers))}
    return {layer: {"fc": "output", **numbered}.get(layer, layer) for layer in layers}


_KNOWN: dict[str, tuple[Callable[[list[str], nn.Module], dict[str, str]], tuple[int, int, int]]] = {
    "resnet20": (_resnet, (3, 32, 32)),
    "vgg16": (_vgg, (3, 32, 32)),
    "vgg19": (_vgg, (3, 32, 32)),
    "lenet-300-100": (_lenet, (1, 28, 28)),
}
"""Name of a network -> how its layers are called, and the images that open_lth trains it on."""


def _renamed(folder: Path, name: str, weights: dict[str, Tensor]) -> tuple[models.Network, dict[str, str]]:
    """Rename `weights`, in place, for our network of this name. Returns that, and {their layer: ours}."""
    if name not in _KNOWN:
        raise InputError(f"network: got {name!r}{nearest(name, _KNOWN)}, expected one of {', '.join(_KNOWN)}, or None")
    rule, shape = _KNOWN[name]
    head = weights.get("fc.weight")
    if head is None or head.dim() != 2:
        raise InputError(f"{folder} does not fit {name}: it has no layer 'fc', the last one of open_lth's networks")
    network = models.Network(name, shape, head.shape[0])
    with torch.device("meta"):
        ours = models.build(network, seed=0)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    names = rule(layers, ours)
    if rule is _vgg:
        _move_biases(weights)
    theirs = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": key for key in weights}
    expected = ours.state_dict()
    for key, tensor in expected.items():
        if key not in theirs:
            raise InputError(f"{folder} does not fit {name}: it has nothing for {key!r} of shape {tuple(tensor.shape)}")
    for key, their in theirs.items():
        got = tuple(weights[their].shape)
        if key not in expected:
            raise InputError(f"{folder} does not fit {name}, which has nothing for its {their!r} of shape {got}")
        if got != expected[key].shape:
            wanted = tuple(expected[key].shape)
            raise InputError(f"{folder} does not fit {name}: its {their!r} has shape {got}, {key!r} {wanted}")
    renamed = {key: weights[their] for key, their in theirs.items()}
    weights.clear()
    weights |= renamed
    return network, names


def _move_biases(weights: dict[str, Tensor]) -> None:
    """The biases of convolutions, which have none here, go into the BatchNorm after them, which subtracts a mean."""
    for bias in [key for key in weights if key.endswith(".conv.bias")]:
        mean = bias.replace(".conv.bias", ".bn.running_mean")
        if mean in weights and weights[mean].shape == weights[bias].shape:
            weights[mean] = weights[mean] - weights.pop(bias)
