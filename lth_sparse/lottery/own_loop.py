"""The steps of a lottery, for a training loop of one's own: prune, remember weights, rewind to them and prove it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from lth_sparse.lottery import criteria, proof
from lth_sparse.lottery.criteria import Criterion
from lth_sparse.lottery.criteria.interface import Evidence
from lth_sparse.lottery.proof import Snapshot
from lth_sparse.nn import forms, get_masks, set_masks
from lth_sparse.nn.masks import Masks, density, weight_name
from lth_sparse.nn.pruned_layers import prunable_layers
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket_state import put_into
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

SCOPES = ("layerwise", "global")


def prune(
    model: nn.Module,
    rate: float | Mapping[str, float] | None = None,
    *,
    sparsity: float | None = None,
    scope: str = "layerwise",
    criterion: str | Criterion = "magnitude",
    layers: Iterable[str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    backend: str = "auto",
    loss: Callable[[nn.Module], Tensor] | None = None,
    example: Tensor | None = None,
    seed: int = 0,
) -> nn.Module:
    """Prune `model` further, in place, in the middle of its training if need be.

    rate: the fraction of the live weights to prune, in [0, 1), or one for each layer: {"conv1": 0.1}.
    sparsity: instead, the fraction of all weights that shall be pruned afterwards, in [0, 1): Zhu and Gupta's schedule
    (2017) is `sparsity=final * (1 - (1 - step / steps) ** 3)`. A layer that is sparser already stays as it is.
    scope: "layerwise" ranks the weights of each layer by themselves, "global" those of all layers together.
    criterion: "magnitude", "random", "erk" (random, each layer's density by its size), "snip", "grasp", "synflow", or a
    function of the model that gives {layer: scores}; the highest scores live.
    layers: the names of those that may be pruned (default: every nn.Conv2d and nn.Linear, dense or sparse).
    optimizer: the one that trains `model`. It keeps what it has for the weights that survive (momentum, moments), and
    its parameters become those of the layers that were dense and are sparse now.
    backend: of these layers.
    loss: for "snip" and "grasp", a function of the model that gives its loss on a batch. example: for "synflow", an
    input of the model. seed: of what "random" and "erk" leave to chance.

    Each layer, or with scope="global" the network, keeps at least one weight; pruned weights stay pruned.

    Returns `model`, or, when `model` itself is the layer, the sparse one that replaces it. Raises ValueError or
    TypeError, nothing changed, for what cannot be used, as `set_masks` does.
    """
    if (rate is None) == (sparsity is None):
        raise InputError("prune: give rate, the fraction of the live weights to prune, or sparsity, the one to reach")
    by_layer = rate if isinstance(rate, Mapping) else None
    if by_layer is not None and (scope == "global" or layers is not None):
        raise InputError('rate: got one for each layer, expected neither scope="global" nor layers beside it')
    network, _ = forms.unwrap(model)
    masks = masks_of(network, layers if by_layer is None else by_layer)
    if sparsity is not None:
        left = dict.fromkeys(masks, 1 - fraction(sparsity, "sparsity"))
    else:
        rates = dict.fromkeys(masks, rate) if by_layer is None else by_layer
        left = {name: (1 - fraction(rates[name], "rate")) * density({name: mask}) for name, mask in masks.items()}
    evidence = Evidence(loss, example, seed)
    return set_masks(model, fewer(network, masks, left, scope, criterion, evidence), optimizer, backend=backend)


def masks_of(network: nn.Module, layers: Iterable[str] | None) -> Masks:
    """The masks of the `layers`, or of all that can be pruned; where nothing is pruned they are all True."""
    prunable = prunable_layers(network)
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else list(layers)
    for name in layers or ():
        if name not in prunable:
            raise InputError(
                f"layers: the model has no layer {name!r} that can be pruned{nearest(str(name), prunable)}; "
                f"it has {', '.join(prunable)}"
            )
    chosen = list(prunable if layers is None else layers)
    if not chosen:
        raise InputError("layers: got none, expected a model with an nn.Conv2d or an nn.Linear to prune")
    own = get_masks(network)
    return {
        name: own[name]
        if name in own
        else torch.ones(forms.weight_shape(prunable[name]), dtype=torch.bool, device=prunable[name].weight.device)
        for name in chosen
    }


def fewer(
    network: nn.Module,
    masks: Masks,
    left: Mapping[str, float],
    scope: str,
    criterion: str | Criterion,
    evidence: Evidence,
) -> Masks:
    """New masks: by `criterion` the best of the live weights of `masks`, a fraction `left` of all weights of a layer,
    or in all, with scope "global". Layers that share their weight have one mask, and are counted once."""
    check_scope(scope)
    first_of = {name: name for name in masks}
    layer_of = {weight_name(name): name for name in masks}
    for names in forms.tied(network):
        tied = [layer_of[name] for name in names if name in layer_of]
        first_of |= dict.fromkeys(tied, tied[0]) if tied else {}
    once = {name: mask for name, mask in masks.items() if first_of[name] == name}
    pools = [list(once)] if scope == "global" else [[name] for name in once]
    best = criteria.best(criterion, network, once, left, pools, evidence)
    return {name: best[first] for name, first in first_of.items()}


def snapshot(model: nn.Module) -> Snapshot:
    """A copy of the weights and buffers of `model` in their dense form, and its SHA-256: what `rewind` goes back to.

    `model` may be dense, sparse or under torch.nn.utils.prune, and wrapped in DataParallel, DistributedDataParallel or
    torch.compile. What is pruned already is 0 in the copy.
    """
    weights = proof.copy_of(model)
    return Snapshot(weights, sealed.digest(weights))


def rewind(model: nn.Module, saved: Snapshot, optimizer: torch.optim.Optimizer | None = None) -> list[tuple[str, str]]:
    """Put the weights and buffers of `saved` back into `model`, in place, keep its masks, and prove that it was done.

    optimizer: the one that trains `model`; its state is emptied, for momentum would carry the last round into this one.
    Its learning rate stays: a schedule of it has to begin anew, too.

    Returns the statements that were proved, each with its detail: the saved weights are what they were when they were
    saved, and a copy; each weight is bit for bit the saved one, or 0 where it is pruned; the optimizer is empty.
    Raises ProofError where one does not hold, InputError where `saved` does not fit `model`.
    """
    network, _ = forms.unwrap(model)
    _check_fits(network, saved)
    masks = get_masks(network)
    put_into(model, masks, saved.weights)
    for parameter in network.parameters():
        parameter.grad = None
    if optimizer is not None:
        optimizer.state.clear()
    return proof.before_training(network, masks, saved, saved.weights, optimizer)


def prove_training(
    model: nn.Module, saved: Snapshot, gradient: Mapping[str, Tensor] | None = None
) -> list[tuple[str, str]]:
    """Prove, of a `model` that was rewound to `saved` and trained, that its masks held and their live weights moved.

    gradient: of the loss at `saved`, {layer: tensor of its dense weight's shape}; with it a layer that did not move is
    told from one that no gradient reaches. Returns and raises as `rewind`.
    """
    network, _ = forms.unwrap(model)
    _check_fits(network, saved)
    masks = get_masks(network)
    if not masks:
        raise InputError("model: got one without masks, of which nothing can be proved: lth.prune(model, ...) first")
    return proof.after_training(network, masks, saved.weights, lambda: gradient or {})


def _check_fits(network: nn.Module, saved: Snapshot) -> None:
    if not isinstance(saved, Snapshot):
        raise InputError(f"saved: got a {type(saved).__name__}, expected what lth.snapshot(model) gave")
    now = forms.dense_state(network)
    for name in sorted(now.keys() | saved.weights.keys()):
        there, here = (
            f"{state[name].dtype} {tuple(state[name].shape)}" if name in state else "nothing"
            for state in (saved.weights, now)
        )
        if there != here:
            raise InputError(f"saved does not fit the model: {name!r} is {there} in it, and {here} in the model")


def check_scope(scope: str) -> None:
    """Raises InputError, with the nearest one, for a scope that there is not."""
    if scope not in SCOPES:
        raise InputError(f"scope: got {scope!r}{nearest(str(scope), SCOPES)}, expected one of {', '.join(SCOPES)}")


def fraction(value: object, name: str) -> float:
    """`value` as a fraction in [0, 1); raises InputError, under its name, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{name}: got {value!r}, expected a fraction in [0, 1), such as 0.2 for 20 %")
    return float(value)
