"""Whether a network that is not this package's can be trained on these images, and pruned: found out before a run."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lth_sparse.models.registry import Network
from lth_sparse.nn import forms
from lth_sparse.nn.masks import left_dense, prunable, weight_name
from lth_sparse.nn.pruned_layers import check_layer
from lth_sparse.system.errors import InputError, because

IMAGES = 2
SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384)
"""Pixels of the square images that are tried where those of the data set do not fit."""


def check(network: Network, model: nn.Module) -> str:
    """A sentence about the layers that pruning leaves alone, "" where there is none.

    Raises InputError, in a sentence that names `network`, where `model` cannot go through a lottery. It has to have
    layers to prune, all of them dense and with weights of their own, and to give a number for each class, in training
    as in evaluation, from a batch of images of the network's shape.
    """
    where = f"model {network.name!r}"
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise InputError(f"{where} has lazy layers, which have no weights yet: run a batch through it first")
    if held := forms.own_masks(model):
        raise InputError(
            f"{where} is pruned already, in {', '.join(held)}: a lottery begins with a dense network; give that, and "
            "its weights as --checkpoint FILE"
        )
    weights = prunable(model)
    if not weights:
        raise InputError(f"{where} has no nn.Conv2d and no nn.Linear, so there is nothing to prune")
    for name in weights:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        try:
            check_layer(layer, f'"{name}"')
        except (TypeError, ValueError) as error:
            raise InputError(f"{where} has a layer that cannot be pruned: {error}") from error
    pruned = {weight_name(name) for name in weights}
    for names in forms.tied(model):
        owners = {model.get_submodule(name.rpartition(".")[0]) for name in names}
        if pruned & set(names) and len(owners) > 1:
            raise InputError(
                f"{where} shares one weight between {' and '.join(names)}: a lottery gives each layer a mask of its "
                "own; give each a weight of its own"
            )
    _try(network, model, where)
    left: dict[str, list[str]] = {}
    for name, reason in left_dense(model).items():
        left.setdefault(reason, []).append(name)
    several = [f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {why}" for why, names in left.items()]
    return f"{where} has layers that are not pruned: {'; '.join(several)}" if left else ""


def _try(network: Network, model: nn.Module, where: str) -> None:
    try:
        tried = copy.deepcopy(model)  # BatchNorm learns from what it sees.
    except Exception as error:
        raise InputError(f"{where} cannot be copied, as each round needs it: {because(error)}") from error
    channels, height, width = network.input_shape
    for training in (True, False):
        try:
            output = _output(tried.train(training), channels, height, width)
        except Exception as error:
            raise InputError(
                f"{where} does not take images of {channels}x{height}x{width}: {because(error)}"
                f"{_other_size(model, network.input_shape)}"
            ) from error
        if not isinstance(output, Tensor) or not output.is_floating_point():
            given = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
            mode = "training" if training else "evaluation"
            raise InputError(f"{where} gives a {given} in {mode}; expected one float tensor [images, classes]")
        if output.shape != (IMAGES, network.classes):
            raise InputError(
                f"{where} gives {tuple(output.shape)} for {IMAGES} images, expected {(IMAGES, network.classes)}, a "
                "number for each class; a function is given the number of classes as its parameter num_classes"
            )


def _output(model: nn.Module, channels: int, height: int, width: int) -> object:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return model(torch.randn(IMAGES, channels, height, width))


def _other_size(model: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """What to do: the size that fits, if there is one; the larger ones first, which lose nothing of the images."""
    channels, *given = input_shape
    tried = copy.deepcopy(model).eval()
    for size in sorted(SIZES, key=lambda size: (size < max(given), size)):
        try:
            _output(tried, channels, size, size)
        except Exception:  # It may be anything, as what was raised for the size that was given.
            continue
        return f"; --image-size {size} gives it images that it takes"
    return "; mend it, or give it images of another size with --image-size"
