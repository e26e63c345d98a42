"""Settings from a file: the config.json of a run, or the same names and values in JSON or YAML."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lth_sparse.settings import config
from lth_sparse.system import command_line
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

YAML_SUFFIXES = (".yaml", ".yml")
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTS = {command_line.fractions: "fractions", command_line.steps: "steps", command_line.chosen: "names"}
"""What is listed, by how a command line is read that lists it."""


def read(path: Path) -> dict[str, Any]:
    """The settings in the file at `path`, by name, as `config.build` takes them over a preset.

    JSON, or YAML where its name ends so: names with values, by themselves or in the sections data, training and
    pruning. Of a run's config.json, which has them as its `config`, the data set is the one that the run had, where it
    asked for "auto". Raises InputError, with the line, for what is no setting or has another type.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"--config {path}: {reason}; give a run's config.json, or settings as JSON or YAML") from error
    found = _parsed(path, text)
    of_a_run = "config" in found
    settings = found["config"] if of_a_run else found
    if not isinstance(settings, Mapping):
        raise InputError(f'--config {path}: "config" is {settings!r}, expected names with values')
    given = checked(settings, lambda name: f"--config {path}, line {_line(text, name)}")
    if of_a_run:
        given = config.OF_OLDER_RUNS | given
        dataset = found.get("dataset")
        if isinstance(dataset, Mapping) and isinstance(dataset.get("name"), str):
            given["dataset"] = dataset["name"]
    return given


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(text) if path.suffix in YAML_SUFFIXES else json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--config {path}, line {error.lineno}: {error.msg}; expected JSON") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"--config {path}{where}: {problem}; expected YAML") from error
    if not isinstance(found, Mapping):
        raise InputError(f"--config {path}: it holds {_short(found)}, expected names of settings with values")
    return found


def checked(settings: Mapping[Any, Any], where: Callable[[str], str]) -> dict[str, Any]:
    """`settings` by their names, in sections or not, each of the type that it has. `where(name)`: what an error is
    about. Raises InputError."""
    known = {setting.name: (setting, kind, optional) for setting, kind, optional in config.settings()}
    given: dict[str, Any] = {}
    for name, value in _opened(config.renamed(settings), where).items():
        if name not in known:
            raise InputError(f"{where(name)}: there is no setting {name!r}{nearest(name, known)}")
        setting, kind, optional = known[name]
        if value is None and optional:
            given[name] = None
            continue
        parse = setting.metadata["parse"]
        converted = _listed(value, parse) if kind is tuple else _as(kind, value)
        if converted is None:
            allowed = (f"a list of {LISTS[parse]}" if kind is tuple else KINDS[kind]) + (" or null" if optional else "")
            raise InputError(f"{where(name)}: {name} is {_short(value)}, expected {allowed}")
        given[name] = parse(converted) if parse and kind is str else converted
    return given


def _opened(settings: Mapping[Any, Any], where: Callable[[str], str]) -> dict[str, Any]:
    opened: dict[str, Any] = {}
    for name, value in settings.items():
        if not isinstance(name, str):
            raise InputError(f"{where(str(name))}: the name {name!r} is no text")
        inside = value if name in config.SECTIONS and isinstance(value, Mapping) else {name: value}
        for each, setting in inside.items():
            if each in opened:
                raise InputError(f"{where(str(each))}: {each} is given twice")
            opened[str(each)] = setting
    return opened


def _as(kind: type, value: Any) -> Any:
    """`value` as one of this kind, None where it is none."""
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for a text, for want of a point.
        except ValueError:
            return None
    if kind is int and isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if type(value) is kind else None


def _listed(value: Any, parse: Callable[[str], tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """`value` as a command line has it, where it is a list with commas; None where that cannot be read."""
    if value == []:
        return ()
    if isinstance(value, list) and all(type(each) in (str, int, float) for each in value):
        value = ",".join(map(str, value))
    try:
        return parse(value) if isinstance(value, str) else None
    except argparse.ArgumentTypeError:
        return None


def _line(text: str, name: str) -> int:
    """The first line of `text` that has this name with a value."""
    named = re.compile(rf"""^([^#]*[\s{{,"'])?{re.escape(name)}["']?\s*:""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if named.search(line)), 1)


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # It holds itself.
        text = "a value that holds itself"
    return text if len(text) <= 40 else f"{text[:37]}..."
