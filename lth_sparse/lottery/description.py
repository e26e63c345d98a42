"""What `config.json` says of a run, and what an interrupted one has to find unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lth_sparse import __version__
from lth_sparse.data import Dataset
from lth_sparse.models import foreign
from lth_sparse.nn.masks import prunable
from lth_sparse.nn.synchronised_norm import has_norm
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.settings.config import Config
from lth_sparse.storage import environment
from lth_sparse.system import processes
from lth_sparse.system.errors import InputError
from lth_sparse.system.home import from_home
from lth_sparse.system.messages import say


def describe(
    settings: Config,
    command: str,
    backend: str,
    dataset: Dataset,
    model: nn.Module,
    checkpoint_sha256: str | None,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides what the run computes, and what it runs on, JSON-ready: enough to run it again."""
    return {
        "command": command,
        "config": settings.to_json(),
        "backend": backend,
        "dataset": {
            "name": dataset.name,
            "notice": dataset.notice,
            "sha256": dataset.sha256(),
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "image_shape": list(dataset.image_shape),
            "classes": list(dataset.classes),
        },
        "network": {
            "name": settings.model,
            "weights": sum(weight.numel() for weight in prunable(model).values()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "checkpoint_sha256": checkpoint_sha256,
        },
        "rewind": None,
        "environment": environment.describe(device, __version__) | _processes(settings, model),
    }


def _processes(settings: Config, model: nn.Module) -> dict[str, Any]:
    """How many train together, and, of several, what BatchNorm's statistics are those of."""
    if processes.count() == 1:
        return {"processes": 1}
    norm = settings.training.batch_norm if has_norm(model) else "none"
    return {"processes": processes.count(), "batch_norm": norm}


def settings_of(described: dict[str, Any], given: Mapping[str, Any]) -> Config:
    """The settings of an interrupted run. Raises InputError where something in `given` does not match them, or does not
    name again what names a module.
    """
    try:
        settings = Config.from_json(described["config"])
        config.check(settings)
        # "auto" was settled when the run began, and may come out differently today.
        resumed = replace(settings, data=replace(settings.data, dataset=str(described["dataset"]["name"])))
    except (TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(
            f"config.json of this run was changed, or is of another version of lth_sparse ({error}); this run cannot "
            "go on, start another"
        ) from error
    recorded = config.flat(settings.to_json())
    recorded["data_dir"] = from_home(recorded["data_dir"])  # As the command line gives it; older runs have it whole.
    for name, value in given.items():
        if value != recorded[name] and not (name == "dataset" and value == resumed.data.dataset):
            raise InputError(
                f"{flag(name)} {value}: the run under --out has {recorded[name]}; --resume goes on with a run "
                "as it is, leave the option out or start another run"
            )
    for name, value in functions_in(resumed).items():
        if given.get(name) != value:
            raise InputError(
                f"config.json of this run names {value}, and a file is not to decide which modules are imported: if "
                f"you trust it, name it again, with {flag(name)} {value}"
            )
    return resumed


def functions_in(settings: Config) -> dict[str, str]:
    """The settings, by name, that name functions of the user's own, whose modules are imported."""
    named = {"dataset": settings.data.dataset, "criterion": settings.pruning.criterion}
    found = {name: value for name, value in named.items() if ":" in value}
    return found | ({"model": settings.model} if foreign.is_users(settings.model) else {})


def taken_up(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The description of an interrupted run, and what it lacks of that which the run would have now.

    Raises InputError when what the run began with is not what it would go on with; says it where that may only change
    the last bits.
    """
    now = json.loads(json.dumps(now))
    rewind = before.get("rewind")
    if rewind is not None and not (isinstance(rewind, dict) and isinstance(rewind.get("sha256"), str)):
        raise InputError(f"config.json of this run was changed: rewind is {rewind!r}; start another run")
    before = _completed({**before, "rewind": None}, now, "") | {"rewind": rewind}
    then, here = before["environment"]["processes"], now["environment"]["processes"]
    if then != here and before["environment"].get("batch_norm") == "local":
        raise InputError(
            f"--resume: the run was begun by {then} processes with BatchNorm's statistics local to each, and {here} "
            f"would go on with it; start {then}"
        )
    for section, key, what in (
        ("dataset", "sha256", "the images (their SHA-256)"),
        ("network", "weights", "the number of weights"),
        ("network", "checkpoint_sha256", "the checkpoint (its SHA-256)"),
        ("environment", "device", "the device"),
        ("ticket", "sha256", "the ticket (its SHA-256)"),
    ):
        began, goes_on = before.get(section, {}).get(key), now.get(section, {}).get(key)
        if began != goes_on:
            raise InputError(
                f"--resume: {what} was {began} when the run began and is {goes_on} now; the rest would not be "
                "the same run, start another"
            )
    for key in ("torch", "threads", "processor", "processes"):
        if before["environment"].get(key) != now["environment"][key]:
            say(
                f"{key} was {before['environment'].get(key)} when the run began and is {now['environment'][key]} now: "
                "results may differ in their last bits"
            )
    return before


def _completed(before: dict[str, Any], now: dict[str, Any], where: str) -> dict[str, Any]:
    """`before` with what is only in `now`, where a run of an older version has less. No value is of another kind."""
    completed = {**now, **{name: value for name, value in before.items() if value is not None}}
    for name, value in now.items():
        found = completed[name]
        plain = value is None and isinstance(found, str | int | float | None)
        if not plain and not isinstance(found, type(value)):
            raise InputError(
                f"config.json of this run was changed: {where}{name} is {found!r}; this run cannot go on, start another"
            )
        if isinstance(value, dict):
            completed[name] = _completed(found, value, f"{name}.")
    return completed
