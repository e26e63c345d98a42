"""Plain JSON read with suspicion: each function gives what is there, or raises ValueError in one sentence.

`where`: what the sentence calls the place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_Row = TypeVar("_Row")


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


def row(kind: type[_Row], value: Any, where: str) -> _Row:
    """The dataclass of this kind whose fields are the object's, each of the type that the class gives it: plain JSON,
    `X | None`, or lists and dictionaries of these."""
    found = mapping(value, where)
    types = _types(cast(Any, kind))
    for name in found:
        if name not in types:
            raise ValueError(f"{where} has {_short(name)}, which is no field of it")
    for name, (type_, needed) in types.items():
        if name not in found and needed:
            raise ValueError(f"{where}.{name} is missing")
        if name in found and not is_of(found[name], type_):
            raise ValueError(f"{where}.{name} is {_short(found[name])}, expected {getattr(type_, '__name__', type_)}")
    return kind(**found)


@cache
def _types(kind: type) -> dict[str, tuple[Any, bool]]:
    """Of each field its type, and whether it has no default."""
    hints = get_type_hints(kind)
    return {
        each.name: (hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    }


def is_of(value: Any, kind: Any) -> bool:
    """Whether plain JSON is of a type: bool is no int, and an int is a float, as it is in Python."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of(value, each) for each in inside)
    if origin is list:
        return isinstance(value, list) and all(is_of(each, inside[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(is_of(each, inside[1]) for each in value.values())
    if kind is Any:
        return True
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) < 2**63)
    if kind is int:
        return type(value) is int and abs(value) < 2**63
    return type(value) is kind


def _short(value: Any) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:37]}..."
