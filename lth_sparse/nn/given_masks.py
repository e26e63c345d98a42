"""Masks as a program gives them, one rule for all who take them: {name of a layer: dense bool tensor}.

Nothing else is converted, for integers may be indices and floats scores: whoever gives them is told how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lth_sparse.nn.masks import Masks
from lth_sparse.system.suggest import nearest


def by_layer(masks: object, model: nn.Module, prefix: str = "") -> Masks:
    """`masks` by the names of `model`'s modules, which may be given with a wrapper's `prefix`; masks are not looked at.

    Raises TypeError when they are no mapping or a key is no name, ValueError when it names no module.
    """
    if not isinstance(masks, Mapping):
        example = name_inside(model) or "layer"
        raise TypeError(f'masks: got a {type(masks).__name__}, expected a dict such as {{"{example}": bool tensor}}')
    # A module that is used in two places has two names, and may be given its mask under either.
    modules = dict(model.named_modules(remove_duplicate=False))
    found: Masks = {}
    for key, mask in masks.items():
        name = f"{key}.".removeprefix(prefix).removesuffix(".") if isinstance(key, str) else key
        _check_name(name, modules)
        found[name] = mask
    return found


def name_inside(module: nn.Module, prefix: str = "") -> str:
    """The name of the first layer in `module` that can be sparse, "" if there is none."""
    names = module.named_modules(prefix=prefix)
    return next((name for name, layer in names if type(layer) in (nn.Conv2d, nn.Linear)), "")


def _check_name(name: Any, modules: Mapping[str, nn.Module]) -> None:
    if isinstance(name, nn.Module | Tensor):
        owners = (key for key, module in modules.items() if module is name or _holds(module, name))
        own = next((f'that of its layer, "{key}"' for key in owners), "that of a layer of the model")
        raise TypeError(f"masks: got a {type(name).__name__} for a name, expected {own}")
    if not isinstance(name, str):
        raise TypeError(f"masks: got {name!r} for a name, expected a str")
    if name not in modules:
        layer = name.rpartition(".")[0]
        if name.endswith("weight") and isinstance(modules.get(layer), nn.Conv2d | nn.Linear):
            raise ValueError(f'masks: got "{name}", the name of a weight, expected that of its layer, "{layer}"')
        raise ValueError(f'masks: got the unknown layer "{name}"{nearest(name, modules)}')


def _holds(module: nn.Module, tensor: object) -> bool:
    return any(parameter is tensor for parameter in module._parameters.values())
