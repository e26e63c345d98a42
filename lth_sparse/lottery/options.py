"""The settings of a run as options of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field
from typing import Any

from lth_sparse import data, models
from lth_sparse.backends.registry import backends
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.system.command_line import fractions, steps

METAVARS = {fractions: "FRACTIONS", steps: "STEPS"}


def add(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Adds an option for each setting but those called `without`, by subject."""
    for title, settings in config.by_subject().items():
        left = [each for each in settings if each[0].name not in without]
        if not left:
            continue
        group = parser.add_argument_group(title)
        for setting, kind, _ in left:
            if kind is bool:
                group.add_argument(flag(setting.name), action=argparse.BooleanOptionalAction, help=_help(setting))
                continue
            group.add_argument(
                flag(setting.name),
                *filter(None, [setting.metadata["of_old"]]),
                type=setting.metadata["parse"] or kind,
                metavar=METAVARS.get(setting.metadata["parse"], setting.name.upper()),
                help=_help(setting),
            )


def _help(setting: Field[Any]) -> str:
    """The sentence of the setting, with the values that it may take."""
    by_name = {"model": models.names(), "dataset": ["auto", *data.names()], "backend": list(backends())}
    choices = setting.metadata["choices"] or by_name.get(setting.name)
    text = setting.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
    return text.replace("%", "%%")
