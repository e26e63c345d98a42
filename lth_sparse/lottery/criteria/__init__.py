"""What decides which weights stay: criteria, by name. A score for each weight; the highest scores live.

A criterion looks at the dense network, its pruned weights at zero. To add one: a function of the model, the masks and
the `Evidence`, entered in `CRITERIA`; whoever has one of their own passes a function of the model alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from lth_sparse.lottery.criteria import chance, gradients, synaptic_flow
from lth_sparse.lottery.criteria.interface import Evidence, Registered, Scores, weights_of
from lth_sparse.lottery.pruning import keep_largest
from lth_sparse.nn import densify, forms
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.system.command_line import out_of_memory
from lth_sparse.system.errors import InputError, because
from lth_sparse.system.suggest import nearest

Criterion = Callable[[nn.Module], Scores]
"""Somebody's own: takes the model, in any form; gives, by the names of layers, scores of the shape of their weights."""


def _magnitude(model: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    return {name: weight.detach().abs() for name, weight in weights_of(model, masks).items()}


CRITERIA: dict[str, Registered] = {
    "magnitude": Registered(_magnitude),  # Han et al. 2015.
    "random": Registered(chance.scores),
    "erk": Registered(chance.scores, densities=chance.erk),  # Evci et al. 2020.
    "snip": Registered(gradients.snip, needs=frozenset({"loss"})),  # Lee et al. 2019.
    "grasp": Registered(gradients.grasp, needs=frozenset({"loss"})),  # Wang et al. 2020.
    "synflow": Registered(
        synaptic_flow.scores, needs=frozenset({"example"}), steps=synaptic_flow.STEPS
    ),  # Tanaka et al.
}


def check(criterion: object, evidence: Evidence) -> None:
    """Raises InputError for an unknown name, and for one that needs what `evidence` has not."""
    if callable(criterion):
        return
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise InputError(
            f"criterion: got {criterion!r}{nearest(str(criterion), CRITERIA)}, expected one of {', '.join(CRITERIA)}, "
            "or a function of the model that gives {layer: scores}"
        )
    missing = [name for name in sorted(CRITERIA[criterion].needs) if getattr(evidence, name) is None]
    if missing:
        what = {"loss": "a function of the model that gives its loss on a batch", "example": "an input of the model"}
        raise InputError(f"criterion: {criterion!r} needs {missing[0]}=, {what[missing[0]]}")


def best(
    criterion: str | Criterion,
    model: nn.Module,
    masks: Masks,
    keep: Mapping[str, float],
    pools: Iterable[Sequence[str]],
    evidence: Evidence,
) -> Masks:
    """New masks that keep, by `criterion`, the best live weights of `masks`, a fraction `keep` of all of a layer.

    The layers of one of the `pools` share the number that they keep. `model`: in any form; it is left as it is. Raises
    InputError as `check` does, for a layer without scores, of another shape than its weight, or of NaN where it is
    alive.
    """
    check(criterion, evidence)
    if not isinstance(criterion, str):
        return keep_largest(_checked(_asked(criterion, model), masks), masks, keep, pools)
    registered = CRITERIA[criterion]
    pools = [list(pool) for pool in pools]
    if registered.densities is not None:
        keep, pools = registered.densities(masks, keep), [[name] for name in masks]
    network = _plain(model)
    live = {name: int(mask.sum()) for name, mask in masks.items()}
    for step in range(1, registered.steps + 1):
        masking.apply(network, masks)
        scores = _checked(_scored(criterion, registered, network, masks, evidence), masks)
        masks = keep_largest(scores, masks, _on_the_way(live, masks, keep, pools, step / registered.steps), pools)
    return masks


def _asked(criterion: Criterion, model: nn.Module) -> Scores:
    """What somebody's own function says. Raises InputError for what it raises."""
    try:
        return criterion(model)
    except InputError:
        raise
    except Exception as error:
        name = getattr(criterion, "__name__", type(criterion).__name__)
        raise InputError(f"criterion: {name} raised {because(error)}") from error


def _scored(name: str, registered: Registered, network: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    """What a criterion says. Raises InputError where it cannot be asked of this network: it takes a tensor of float,
    and gives one."""
    try:
        return registered.scores(network, masks, evidence)
    except (TypeError, AttributeError, RuntimeError) as error:
        if not registered.needs or out_of_memory(error):
            raise
        expected = (
            "that loss(model) calls model(...) for a tensor" if "loss" in registered.needs else "a tensor of float"
        )
        raise InputError(
            f"criterion: {name} cannot be asked of this model, expected {expected}: {because(error)}"
        ) from error


def _plain(model: nn.Module) -> nn.Module:
    """A copy of the network, dense, without torch.nn.utils.prune."""
    network, _ = forms.unwrap(model)
    for module in network.modules():
        for name in forms.pruned(module):  # Its product, which the next forward pass renews, cannot be copied.
            setattr(module, name, getattr(module, name).detach())
    network = densify(copy.deepcopy(network))
    for module in network.modules():
        for name in forms.pruned(module):
            torch_prune.remove(module, name)
    return network


def _on_the_way(
    live: Mapping[str, int], masks: Masks, keep: Mapping[str, float], pools: Sequence[Sequence[str]], progress: float
) -> Mapping[str, float]:
    """Densities of which each pool keeps a number between the `live` ones that it began with and what it is to `keep`,
    by the same factor at each step."""
    if progress == 1:
        return keep
    found: dict[str, float] = {}
    for pool in pools:
        began, ends = sum(live[name] for name in pool), sum(keep[name] * masks[name].numel() for name in pool)
        factor = (began / ends) ** (1 - progress) if began > ends > 0 else 1.0
        found |= {name: keep[name] * factor for name in pool}
    return found


def _checked(found: object, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
