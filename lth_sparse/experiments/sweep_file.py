"""The file that says what a sweep plays: seeds, and runs, each a name with settings.

```yaml
seeds: 3
base: {preset: quick, dataset: digits, rounds: 3}
runs:
  rewound: {}
  fine-tuned: {rewind: none}
grid:
  criterion: [magnitude, snip]
```

Each run has the settings of `base` under its own; `grid` plays each of them once for every combination of its lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lth_sparse import data, models
from lth_sparse.backends import registry
from lth_sparse.experiments.replicates import MOST
from lth_sparse.lottery.criteria.own import criterion_of
from lth_sparse.settings import config, file
from lth_sparse.settings.config import Config
from lth_sparse.storage.files import slug
from lth_sparse.system.errors import BackendError, InputError
from lth_sparse.system.suggest import nearest

KEYS = ("seeds", "base", "runs", "grid")
ONE = "run"
"""The name of the only run of a file that has a grid alone."""


@dataclass(frozen=True)
class Sweep:
    """`runs`: name -> the settings of one of them. `seeds`: how many each is played on."""

    runs: dict[str, dict[str, Any]]
    seeds: int


def read(path: Path) -> Sweep:
    """The sweep in the YAML file at `path`, every run of it tried against the settings that there are.

    Raises InputError, with the line and the key, for what it cannot be.
    """
    try:
        return _read(path)
    except RecursionError as error:
        raise InputError(f"{path}: it is nested too deeply, or holds itself") from error


def _read(path: Path) -> Sweep:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"{path}: {reason}; give a sweep as YAML") from error
    lines, found = _parsed(path, text)

    def where(*keys: str) -> str:
        return f"{path}, line {lines.get(keys, 1)}"

    for key in found:
        if key not in KEYS:
            raise InputError(f"{where(str(key))}: there is no key {key!r}{nearest(str(key), KEYS)}")
    seeds = found.get("seeds", 1)
    if type(seeds) is not int or not 1 <= seeds <= MOST:
        raise InputError(f"{where('seeds')}: seeds is {seeds!r}, expected a whole number from 1 to {MOST}")
    base = _settings(found.get("base", {}), partial(where, "base"))
    grid = _grid(found.get("grid", {}), where)
    named = _mapping(found.get("runs", {ONE: {}}), "runs", where("runs"))
    runs: dict[str, dict[str, Any]] = {}
    for name, settings in named.items():
        own = _settings({} if settings is None else settings, partial(where, "runs", str(name)))
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            full = ", ".join([str(name), *(f"{key} {value}" for key, value in chosen.items())])
            runs[full] = base | own | chosen
            try:
                check_names(config.build(runs[full]))
            except (InputError, BackendError) as error:
                raise InputError(f"{where('runs', str(name))}: {full}: {error}") from error
    folders = [slug(name) for name in runs]
    if twice := [name for name, folder in zip(runs, folders, strict=True) if not folder or folders.count(folder) > 1]:
        raise InputError(f"{where('runs')}: {twice[0]!r} makes the folder {slug(twice[0])!r}, expected one of its own")
    return Sweep(runs, seeds)


def check_names(settings: Config) -> None:
    """Raises InputError for a network, a data set, a backend or a criterion of ours that there is not."""
    criterion_of(settings.pruning.criterion)
    registry.resolve(settings.backend)
    models.minimum_size(settings.model)
    name = settings.data.dataset
    if ":" not in name and name not in (known := ["auto", *data.names()]):
        raise InputError(f"--dataset {name}: expected one of {', '.join(known)}{nearest(name, known)}")


def _parsed(path: Path, text: str) -> tuple[dict[tuple[str, ...], int], Mapping[Any, Any]]:
    """The line of every key, by the keys that lead to it, and what the file holds."""
    try:
        node, found = yaml.compose(text), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path}{f', line {mark.line + 1}' if mark else ''}: {problem}; expected YAML") from error
    lines: dict[tuple[str, ...], int] = {}
    _number(path, node, (), lines)
    return lines, _mapping(found, "a sweep", str(path))


def _number(path: Path, node: Any, above: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        place = (*above, str(key.value))
        if place in lines:
            raise InputError(f"{path}, line {key.start_mark.line + 1}: {key.value} is given twice")
        lines[place] = key.start_mark.line + 1
        _number(path, value, place, lines)


def _mapping(found: Any, what: str, where: str) -> Mapping[Any, Any]:
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{where}: {what} is {found!r}, expected names with values")
    return found


def _settings(found: Any, where: Callable[..., str]) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise InputError(f"{where()}: got {found!r}, expected settings, names with values")
    return file.checked(found, where)


def _grid(found: Any, where: Callable[..., str]) -> dict[str, list[Any]]:
    if not isinstance(found, Mapping):
        raise InputError(f"{where('grid')}: grid is {found!r}, expected settings, each with a list of values")
    grid: dict[str, list[Any]] = {}
    for name, values in found.items():
        at = where("grid", str(name))
        if not isinstance(values, list) or not values:
            raise InputError(f"{at}: {name} is {values!r}, expected a list of values")
        grid[str(name)] = [file.checked({name: value}, partial(where, "grid"))[str(name)] for value in values]
    return grid
