"""get_masks and set_masks: which weights of a model live, and others in their place while it is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lth_sparse.nn import forms
from lth_sparse.nn.given_masks import by_layer
from lth_sparse.nn.masks import Masks
from lth_sparse.nn.optimizer_state import Move, moved_state
from lth_sparse.nn.pruned_layers import masks_by_module
from lth_sparse.nn.replacing import COUNTERPART
from lth_sparse.nn.sparse_layer import SparseLayer, check_mask, put_numbers
from lth_sparse.nn.sparsify import sparsify
from lth_sparse.plans.pattern import Pattern


def get_masks(model: nn.Module) -> Masks:
    """The masks that `model` has, in sparse layers or of torch.nn.utils.prune: {layer: bool, its weight's shape}.

    They are copies; `set_masks` takes them. A layer that several names lead to has each of them. `model` may be wrapped
    in DataParallel, DistributedDataParallel or torch.compile: the names are those of the network inside.
    """
    network, _ = forms.unwrap(model)
    return {name: mask.detach().clone() for name, mask in forms.own_masks(network).items()}


def set_masks(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    backend: str = "auto",
) -> nn.Module:
    """Let other weights of `model` live, in place, in the middle of its training.

    masks: {layer: bool, its weight's shape}, for as many layers as shall change. Weights that live before and after
    keep their numbers, gradients and what `optimizer` keeps for them (momentum, moments); those newly alive begin with
    0 in all of them. `values` stays the same Parameter. A layer that is dense becomes sparse, computed by `backend`,
    and `optimizer` gets its new parameters in the place of the old ones. A mask of a tied weight holds for every layer
    that shares it.

    Returns `model`, or, when `model` itself is the layer (named ""), the layer that replaces it.
    Raises ValueError or TypeError, nothing changed, for a name or a mask that does not fit, for an optimizer that has
    none of these parameters or keeps what has no part for each weight, and for DistributedDataParallel where the number
    of live weights would change: it has made its buffers for as many.
    """
    network, prefix = forms.unwrap(model)
    by_name = by_layer(masks, network, prefix)
    layers = forms.layers(network)
    sparse = {name: mask for name, mask in by_name.items() if isinstance(layers.get(name), SparseLayer)}
    dense = {name: mask for name, mask in by_name.items() if name not in sparse}
    changes = _changes(layers, sparse)
    becoming = masks_by_module(network, dense)
    _refuse_other_sizes(model, changes, becoming)
    repackings = [_Repacking(name, group, mask) for name, group, mask in changes]
    replacements = _replacements(network, becoming)
    finish = moved_state(optimizer, [repacking.move for repacking in repackings] + replacements)
    replaced = sparsify(network, dense, backend) if dense else network
    for move in replacements:
        if move.old.grad is not None:
            move.new(replaced).grad = move.moved(move.old.grad)
    for repacking in repackings:
        repacking.apply()
    finish(replaced)
    return replaced if network is model else model


def _changes(
    layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]
) -> list[tuple[str, list[SparseLayer], Tensor]]:
    """What changes: a name, the layers that share one `values`, and their new mask."""
    sharing: dict[nn.Parameter, dict[SparseLayer, None]] = defaultdict(dict)
    for layer in layers.values():
        if isinstance(layer, SparseLayer):
            sharing[layer.values][layer] = None
    chosen: dict[nn.Parameter, tuple[str, Tensor]] = {}
    for name, mask in masks.items():
        layer = layers[name]
        assert isinstance(layer, SparseLayer)
        check_mask(mask, layer.mask, f'masks["{name}"]')
        layer._check_live()
        first, known = chosen.setdefault(layer.values, (name, mask))
        if not torch.equal(known, mask):
            raise ValueError(f'masks: got different ones for "{first}" and "{name}", which share their weight')
    return [
        (name, list(sharing[values]), mask)
        for values, (name, mask) in chosen.items()
        if not all(torch.equal(layer.mask, mask) for layer in sharing[values])
    ]


class _Repacking:
    """Another mask for the layers that share one `values`."""

    def __init__(self, name: str, layers: list[SparseLayer], mask: Tensor) -> None:
        self._layers = layers
        self._values = layers[0].values
        self._mask = mask.detach().contiguous()
        self._moved = _to_live_weights_of(layers[0].pattern, self._mask)
        self.move = Move(f"{name}.values".removeprefix("."), self._values, lambda network: self._values, self._moved)

    def apply(self) -> None:
        values, gradient = self._moved(self._values.detach()), self._values.grad
        moved_gradient = None if gradient is None else self._moved(gradient)
        self._values.grad = None
        put_numbers(self._values, values)
        self._values.grad = moved_gradient
        for layer in self._layers:
            layer.mask = self._mask.clone()


def _to_live_weights_of(pattern: Pattern, mask: Tensor) -> Callable[[Tensor], Tensor]:
    """Takes a tensor [nnz] of the live weights of `pattern` to those of `mask`; those newly alive get 0."""
    before, after = pattern.mask.flatten(), mask.flatten()
    if not bool((after & ~before).any()):  # All of them survived, which needs no search.
        stays = after if pattern.nnz == after.numel() else after[before]
        return lambda values: values[stays]
    kept, taken_over = after[before], before[after]

    def moved(values: Tensor) -> Tensor:
        result = values.new_zeros(taken_over.numel())
        result[taken_over] = values[kept]
        return result

    return moved


def _replacements(network: nn.Module, becoming: Mapping[nn.Module, Tensor]) -> list[Move]:
    """The parameters of dense layers, which their sparse ones will have anew."""
    moves: dict[nn.Parameter, Move] = {}
    names = {module: name for name, module in network.named_modules()}
    for module, mask in becoming.items():
        name = names[module]
        for key, parameter in module.named_parameters(recurse=False):
            counterpart = COUNTERPART[key]

            def new(replaced: nn.Module, name: str = name, key: str = counterpart) -> nn.Parameter:
                return replaced.get_submodule(name).get_parameter(key)

            def moved(tensor: Tensor, mask: Tensor = mask, live: bool = counterpart == "values") -> Tensor:
                return tensor[mask] if live else tensor

            moves.setdefault(parameter, Move(f"{name}.{key}".removeprefix("."), parameter, new, moved))
    return list(moves.values())


def _refuse_other_sizes(
    model: nn.Module, changes: list[tuple[str, list[SparseLayer], Tensor]], becoming: Mapping[nn.Module, Tensor]
) -> None:
    if not any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        return
    resized = [name for name, layers, mask in changes if int(mask.sum()) != layers[0].values.numel()]
    if resized or becoming:
        which = f' of "{resized[0]}"' if resized else ""
        raise ValueError(
            "model: got DistributedDataParallel, whose buffers have the sizes of the live weights, and the number"
            f"{which} would change: set the masks of the network inside (model.module), and wrap it again"
        )
