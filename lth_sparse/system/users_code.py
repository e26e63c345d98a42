"""Functions of the user's own, named `module:function` on a command line."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from lth_sparse.system.errors import InputError, because
from lth_sparse.system.suggest import nearest


def function(name: str, where: str) -> Callable[..., Any]:
    """What "module:function" names, imported if it has to be; modules are looked for in the current directory too.

    `where`: what the error is about, such as "--model my_module:net". Raises InputError.
    """
    module_name, colon, inside = name.partition(":")
    if not colon:
        raise InputError(f"{where}: expected module:function")
    if module_name.endswith(".py"):
        path = module_name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise InputError(f"{where}: expected the name of a module, not of its file: {path}:{inside}")
    # As python -m does for a module of its own, also where it was told not to (python -P).
    if module_name not in sys.modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # A script that does its work when it is imported may exit.
        raise InputError(f"{where}: {module_name!r} cannot be imported: {because(error)}") from error
    found = getattr(module, inside, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{where}: {module_name!r} has no function {inside!r}{nearest(inside, known)}")
    return found


def call(called: Callable[..., Any], offered: Mapping[str, Any], where: str) -> Any:
    """`called` with those of the arguments `offered` that its signature names; what it gives.

    Raises InputError where it needs another argument, or for what it raises itself.
    """
    taken = parameters(called, where)
    given = {name: offered[name] for name in taken if name in offered}
    if missing := [name for name, has_default in taken.items() if not has_default and name not in given]:
        raise InputError(
            f"{where}: it has the parameter {', '.join(missing)}, which nothing is known for; it may name "
            f"{', '.join(offered)}, and give any other a default"
        )
    try:
        return called(**given)
    except Exception as error:
        written = ", ".join(f"{name}={value}" for name, value in given.items())
        raise InputError(f"{where}: called with ({written}) it raised {because(error)}") from error


def check_takes_one(called: Callable[..., Any], what: str, where: str) -> None:
    """Raises InputError where `called` cannot be called with one argument, which the error calls `what`."""
    try:
        inspect.signature(called).bind(None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a function that is called with one {what} ({error})") from error


def parameters(called: Callable[..., Any], where: str) -> dict[str, bool]:
    """The names by which `called` takes arguments, and whether each has a default."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: it has no signature to be called by; put a function around it") from error
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken: dict[str, bool] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind == inspect.Parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise InputError(f"{where}: its parameter {name} cannot be given by name; put a function around it")
        if parameter.kind in named:
            taken[name] = parameter.default is not parameter.empty
    return taken
