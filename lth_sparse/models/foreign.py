"""Networks that are not this package's: `torchvision:NAME`, `timm:NAME`, and `module:function`, a function of yours."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import nn

from lth_sparse.system import users_code
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.suggest import nearest

LIBRARIES = ("torchvision", "timm")
OF_CLASSES = ("classes", "num_classes")
"""The parameters of a user's function that are given the number of classes."""


def is_foreign(name: str) -> bool:
    """Whether `name` is of one of these three forms."""
    return ":" in name


def is_users(name: str) -> bool:
    """Whether `name` is that of a function of the user's own, whose module would be imported."""
    return is_foreign(name) and name.partition(":")[0] not in LIBRARIES


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network called `name`, with initial weights of its own making; nothing pretrained is fetched.

    A user's function is called with those of `input_shape`, `classes` and `num_classes` that its signature names.
    `input_shape`: of one example, without the batch. Raises InputError.
    """
    library, _, inside = name.partition(":")
    if library == "torchvision":
        return _of_torchvision(inside, input_shape, classes)
    if library == "timm":
        return _of_timm(inside, input_shape, classes)
    where = f"model {name!r}"
    offered = {"input_shape": tuple(input_shape)} | dict.fromkeys(OF_CLASSES, classes)
    with torch.device("cpu"):  # Not on the meta device, where another may be only counted: it may need its numbers.
        model = users_code.call(users_code.function(name, where), offered, where)
    if not isinstance(model, nn.Module):
        raise InputError(f"{where}: expected it to give an nn.Module, got {type(model).__name__}")
    return model


def refuse_untrusted(name: str, where: str) -> None:
    """Raises InputError where a file that names this network would make a stranger's choice of code run.

    torchvision and timm build networks and nothing else. Any other module has to be imported already, by someone who
    meant it, and what it is asked for has to be made to build networks: a function that takes the number of classes.
    """
    if not is_users(name):
        return
    module_name, _, inside = name.partition(":")
    remedy = "or give load_ticket a model to put it into"
    if module_name not in sys.modules:
        raise InputError(
            f"{where} names the network {name}, and a file is not to decide which modules are imported: "
            f"import {module_name} first, if you trust it, {remedy}"
        )
    found = getattr(sys.modules[module_name], inside, None)
    if not callable(found) or not set(OF_CLASSES) & users_code.parameters(found, where).keys():
        raise InputError(
            f"{where} names the network {name}, and a file is not to decide what is called: {module_name} has no "
            f"function {inside!r} with a parameter {' or '.join(OF_CLASSES)}; add one, {remedy}"
        )


def _of_torchvision(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    import torchvision  # Which takes a second, and only these networks need it.

    known = torchvision.models.list_models(module=torchvision.models)
    _check_known("torchvision", name, known)
    if len(input_shape) != 3 or input_shape[0] != 3:
        raise InputError(
            f"model 'torchvision:{name}' takes images of 3 channels, these have {_channels(input_shape)}; choose "
            f"timm:{name} if timm has it, whose networks take any number, or a function of your own (module:function)"
        )
    # These two give their auxiliary outputs with the others, which is another training than this one.
    others = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **others)
    return model


def _of_timm(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"model 'timm:{name}': timm is not installed: pip install timm") from error
    if not timm.is_model(name):  # It may say which pretrained weights it means, which do not matter here.
        _check_known("timm", name, timm.list_models())
    if len(input_shape) != 3:
        raise InputError(f"model 'timm:{name}' takes images, given examples of shape {tuple(input_shape)}")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=input_shape[0])
    except Exception as error:
        raise InputError(f"model 'timm:{name}' cannot be built: {because(error)}") from error
    return model


def _check_known(library: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(
            f"model '{library}:{name}': {library} has no network {name!r}{nearest(name, known)}; "
            f"python -c 'import {library}; print({library}.{'models.' * (library == 'torchvision')}list_models())' "
            "lists them"
        )


def _channels(input_shape: tuple[int, ...]) -> str:
    return str(input_shape[0]) if len(input_shape) == 3 else f"the shape {tuple(input_shape)}"
