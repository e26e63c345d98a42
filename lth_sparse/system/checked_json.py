"""Plain JSON read with suspicion: each function gives what is there, or raises ValueError in one sentence.

`where`: what the sentence calls the place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """`value` as an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_short(value)}, expected an object with names and values")
    return value


def listed(entry: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The list called `name`."""
    value = entry.get(name)
    if not isinstance(value, list):
        raise ValueError(f'"{name}" of {where} is {_short(value)}, expected a list')
    return value


def text(entry: Mapping[str, Any], name: str, where: str) -> str:
    """The text called `name`."""
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{where}.{name} is {_short(value)}, expected text")
    return value


def count(entry: Mapping[str, Any], name: str, where: str) -> int:
    """The whole number of at least 0 called `name`."""
    value = entry.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{where}.{name} is {_short(value)}, expected a whole number of at least 0")
    return value


def sizes(entry: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    """The list of whole numbers of at least 0 called `name`."""
    value: Sequence[Any] = listed(entry, name, where)
    if any(type(size) is not int or size < 0 for size in value):
        raise ValueError(f"{where}.{name} is {_short(value)}, expected whole numbers of at least 0")
    return tuple(value)


def times(entry: Mapping[str, Any], name: str, where: str) -> dict[str, float]:
    """The object called `name`, whose values are times of at least 0."""
    found = mapping(entry.get(name), f"{where}.{name}")
    for key, value in found.items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{where}.{name} of {key!r} is {value!r}, expected a time of at least 0")
    return dict(found)


def _short(value: Any) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:37]}..."
