"""What a ticket's metadata may hold: made of what the maker gives, and checked before a reader uses it."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from torch import Tensor, strided

from lth_sparse import models
from lth_sparse.system.errors import InputError

OWN_KEYS = ("ticket_version", "network", "shapes", "mask_sha256", "sha256")
"""The keys that the format itself writes."""

LARGEST_ARRAY = 1000
"""Numbers of a tensor or an array in the metadata: it is JSON text, which every reader has to parse."""

MOST_BITS = 2**12
"""Of a whole number in the metadata: Python reads no text of more than 4300 digits as one."""

LARGEST_SIDE = 2**16
"""Channels, height and width of a network's input."""

MOST_CLASSES = 2**20


def described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the maker of a ticket adds, as JSON gives it back; tensors and arrays become numbers and lists of them.

    Raises InputError for a key that the format writes, and for what JSON has no form for.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata: got a {type(metadata).__name__}, expected a dictionary")
    if taken := [key for key in OWN_KEYS if key in metadata]:
        raise InputError(f"metadata: {', '.join(map(repr, taken))}: the ticket writes this itself; choose other keys")
    try:
        found = _plain(metadata, "metadata")
    except RecursionError as error:
        raise InputError("metadata: it is nested too deeply for JSON, or holds itself; make it flatter") from error
    assert isinstance(found, dict)
    return found


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        _refuse(name, f"a whole number of {value.bit_length()} bits", f", with numbers of at most {MOST_BITS} bits")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, entry in value.items():
            text = _key(key, name)
            if text in found:
                raise InputError(f"{name}: two keys are {text!r} in JSON; rename one of them")
            found[text] = _plain(entry, f"{name}[{key!r}]")
        return found
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{name}[{place}]") for place, entry in enumerate(value)]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _numbers(value, name)
    return _refuse(name, f"a {type(value).__name__}")


def _key(key: Any, name: str) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise InputError(f"{name}: got the key {key!r}, a {type(key).__name__}, expected a string")


def _numbers(value: Tensor | np.ndarray | np.generic, name: str) -> Any:
    count = value.numel() if isinstance(value, Tensor) else value.size
    if count > LARGEST_ARRAY:
        _refuse(name, f"an array of {count} numbers", f", with arrays of at most {LARGEST_ARRAY} numbers")
    if isinstance(value, Tensor) and (value.is_meta or value.layout != strided):
        _refuse(name, f"a tensor on {value.device}, {value.layout}")
    found = value.tolist()
    if isinstance(found, np.generic):
        _refuse(name, f"a {type(found).__name__}")
    return _plain(found, name)


def _refuse(name: str, given: str, limit: str = "") -> NoReturn:
    raise InputError(f"{name}: got {given}, expected what JSON holds: text, numbers, lists, dictionaries{limit}")


def check_network(network: models.Network | None) -> None:
    """Refuses, for `save_ticket`, a network that no reader would take."""
    if network is not None and not isinstance(network, models.Network):
        raise InputError(
            f"network: got a {type(network).__name__}, expected lth_sparse.models.Network(name, input_shape, classes)"
        )
    if network is not None:
        _network("network", {**vars(network), "input_shape": list(network.input_shape)})


def read_network(path: object, metadata: Mapping[str, Any]) -> models.Network | None:
    """The network that a ticket names, None if it names none. Its name may be of none that is known here."""
    found = metadata["network"]
    return None if found is None else _network(f"{path}: metadata 'network'", found)


def _network(where: str, found: Any) -> models.Network:
    if not isinstance(found, dict) or found.keys() != {"name", "input_shape", "classes"}:
        raise InputError(f"{where}: got {reprlib.repr(found)}, expected null or name, input_shape and classes")
    name, shape, classes = found["name"], found["input_shape"], found["classes"]
    if not isinstance(name, str):
        raise InputError(f"{where}: name: got {reprlib.repr(name)}, expected the name of a network")
    if not _counts(shape, LARGEST_SIDE) or len(shape) != 3:
        raise InputError(
            f"{where}: input_shape: got {reprlib.repr(shape)}, expected [channels, height, width], "
            f"each from 1 to {LARGEST_SIDE}"
        )
    if not _counts([classes], MOST_CLASSES):
        raise InputError(
            f"{where}: classes: got {reprlib.repr(classes)}, expected a whole number from 1 to {MOST_CLASSES}"
        )
    return models.Network(name, (shape[0], shape[1], shape[2]), classes)


def read_shapes(path: object, metadata: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the masks by the name of their layer. Whether there are bytes for them is another question."""
    found = metadata["shapes"]
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: metadata 'shapes': got {reprlib.repr(found)}, expected a shape for each layer's name"
        )
    for layer, shape in found.items():
        if not shape or not _counts(shape, 2**31):
            raise InputError(
                f"{path}: metadata 'shapes': layer {layer!r}: got {reprlib.repr(shape)}, "
                "expected a list of positive whole numbers"
            )
    return {layer: tuple(shape) for layer, shape in found.items()}


def _counts(values: Any, largest: int) -> bool:
    """Whether this is a list of whole numbers from 1 to `largest`; JSON's true and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and 1 <= value <= largest for value in values)
