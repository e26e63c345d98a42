"""What decides which weights stay: criteria, by name. A score for each weight; the highest scores live."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from lth_sparse.nn import forms
from lth_sparse.nn.sparse_layer import effective
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

Criterion = Callable[[nn.Module], Mapping[str, Tensor]]
"""Takes the model, in any form; gives, by the names of layers, scores of the shape of their dense weights."""


def magnitude(model: nn.Module) -> dict[str, Tensor]:
    """The magnitude of each weight (Han et al. 2015)."""
    return {
        name: (layer.weight if isinstance(layer, forms.SparseLayer) else effective(layer, "weight")).detach().abs()
        for name, layer in forms.layers(model).items()
    }


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude}


def criterion_of(given: str | Criterion) -> Criterion:
    """The criterion of that name, or the one that is given. Raises InputError for an unknown name."""
    if callable(given):
        return given
    if given not in CRITERIA:
        raise InputError(
            f"criterion: got {given!r}{nearest(str(given), CRITERIA)}, expected one of {', '.join(CRITERIA)}, or a "
            "function of the model that gives {layer: scores}"
        )
    return CRITERIA[given]


def scores_of(criterion: Criterion, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `criterion` says of the weights of the layers in `masks`.

    Raises InputError for a layer without scores, of another shape than its weight, or of NaN where it is alive.
    """
    found = criterion(model)
    if not isinstance(found, Mapping):
        raise InputError(f"criterion: got a {type(found).__name__}, expected {{layer: scores}}")
    scores: dict[str, Tensor] = {}
    for name, mask in masks.items():
        given = found.get(name)
        if not isinstance(given, Tensor) or given.shape != mask.shape:
            got = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"{type(given).__name__}"
            raise InputError(
                f'criterion: got {got} for layer "{name}", expected scores of the shape of its weight, '
                f"{tuple(mask.shape)}"
            )
        if bool(given[mask].isnan().any()):
            raise InputError(f'criterion: got NaN for live weights of layer "{name}": has the training diverged?')
        scores[name] = given.detach()
    return scores
