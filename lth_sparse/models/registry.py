"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from lth_sparse.models import foreign
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

Builder = Callable[[tuple[int, int, int], int], nn.Module]


@dataclass(frozen=True)
class Network:
    """What is needed to build a network again: its name, its input `(C, H, W)` and its classes.

    The name is a registered one, `torchvision:NAME`, `timm:NAME`, or `module:function` of the user's own.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class _Entry:
    build: Builder
    minimum_size: int


_NETWORKS: dict[str, _Entry] = {}


def register(name: str, minimum_size: int = 1) -> Callable[[Builder], Builder]:
    """Makes `builder(input_shape, classes) -> nn.Module` available as `name`.

    `minimum_size`: height and width in pixels below which the network's pooling leaves nothing.
    """

    def add(builder: Builder) -> Builder:
        _NETWORKS[name] = _Entry(builder, minimum_size)
        return builder

    return add


def names() -> list[str]:
    """The registered networks."""
    return list(_NETWORKS)


def faster_format(model: nn.Module) -> str:
    """The memory format in which dense PyTorch trains `model` faster as a rule, where it is not measured: its name.

    That is channels_last for convolutions; a network without any only loses by it.
    """
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return "channels_last" if convolutional else "contiguous"


def _entry(name: str) -> _Entry:
    if name not in _NETWORKS:
        hint = nearest(name, _NETWORKS)
        raise InputError(
            f"model {name!r} is not known{hint}; there are: {', '.join(_NETWORKS)}, and torchvision:NAME, timm:NAME, "
            "module:function"
        )
    return _NETWORKS[name]


def minimum_size(name: str) -> int:
    """Smallest height and width, in pixels, that the network called `name` can take; 1 where that is not known."""
    return 1 if foreign.is_foreign(name) else _entry(name).minimum_size


def build(network: Network, seed: int) -> nn.Module:
    """A freshly initialised network; the same `seed` gives the same weights, whatever else drew random numbers.

    The code of a user's own function runs here, and its module is imported. Raises InputError for an unknown name, for
    images smaller than the network can take, and for a function that does not give a network.
    """
    if foreign.is_foreign(network.name):
        return build_foreign(network.name, network.input_shape, network.classes, seed)
    entry = _entry(network.name)
    if min(network.input_shape[1:]) < entry.minimum_size:
        height, width = network.input_shape[1:]
        raise InputError(
            f"model {network.name!r} needs images of at least {entry.minimum_size}x{entry.minimum_size} pixels, "
            f"given {height}x{width}; choose another model or --image-size {entry.minimum_size}"
        )
    with _seeded(seed):
        return entry.build(network.input_shape, network.classes)


def build_foreign(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The same of a network that is not registered, whose examples may be of any shape."""
    with _seeded(seed):
        return foreign.build(name, input_shape, classes)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
