"""What PyTorch's tools for weights find in a sparse layer, which has a parameter `values` and none called `weight`."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn


class Parameters(dict[str, Any]):
    """A module's dictionary of parameters, which says why there is no weight in it to be normalised or pruned."""

    def __missing__(self, name: str) -> NoReturn:
        if name == "weight":
            refuse_weight()
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        # Whoever asks would put a tensor there, or a parametrization.
        if name == "weight":
            refuse_weight()
        return super().__contains__(name)

    def __delitem__(self, name: str) -> None:
        if name == "weight":
            refuse_weight()
        super().__delitem__(name)


class Parametrizations(nn.ModuleDict):
    """A module's parametrizations, of which one may be that of "values", a name that nn.ModuleDict needs for itself."""

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[name] = module


def refuse_weight() -> NoReturn:
    """Raise the sentence for whoever would take the weight for a parameter."""
    raise ValueError(
        'weight: a sparse layer has no such parameter, it is made of "values": prune, normalise or parametrize the '
        'dense layer (lth_sparse.densify) before lth_sparse.sparsify, or give or parametrize "values"'
    )
