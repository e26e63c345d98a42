"""Which weights a round prunes: magnitude pruning, layerwise or global (Han et al. 2015; Frankle and Carbin 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import PruningConfig
from lth_sparse.system.errors import InputError
from lth_sparse.system.seeding import generator

BISECTION_STEPS = 200


def rates(config: PruningConfig, kinds: Mapping[str, str]) -> dict[str, float]:
    """Layer -> fraction of its live weights that a round prunes, by the kind of the layer."""
    by_kind = {"conv": config.conv_rate, "fc": config.fc_rate, "output": config.output_rate}
    return {name: config.prune_rate if (rate := by_kind[kind]) is None else rate for name, kind in kinds.items()}


def density_after(
    config: PruningConfig, round: int, sizes: Mapping[str, int], kinds: Mapping[str, str]
) -> dict[str, float]:
    """Layer -> fraction of its weights that are alive after `round` (0: all of them).

    A layer of rate p keeps (1 - p)^t. Without a final sparsity, t is the round; with one, t is what makes the
    sparsity over all layers that of the schedule, so that rates keep their proportions.
    """
    per_round = rates(config, kinds)
    if round == 0:
        return dict.fromkeys(sizes, 1.0)
    if config.sparsity is None:
        return {name: (1 - rate) ** round for name, rate in per_round.items()}
    progress = round / config.rounds
    if config.schedule == "seed":
        target = 1 - (100 * config.sparsity) ** progress / 100
    else:
        target = (1 - config.sparsity) ** progress
    return densities(config, target, sizes, kinds)


def densities(
    config: PruningConfig, target: float, sizes: Mapping[str, int], kinds: Mapping[str, str]
) -> dict[str, float]:
    """Layer -> fraction of its weights that are alive where `target` of all are, the rates keeping their proportions.

    Raises InputError where layers of rate 0 hold too many.
    """
    per_round, total = rates(config, kinds), sum(sizes.values())

    def keep(exponent: float) -> dict[str, float]:
        return {name: (1 - rate) ** exponent for name, rate in per_round.items()}

    def density(exponent: float) -> float:
        return sum(sizes[name] * kept for name, kept in keep(exponent).items()) / total

    # A rate too small for float64 to tell from 0 counts as 0, or no exponent would ever reach the target.
    unprunable = sum(sizes[name] for name, rate in per_round.items() if 1 - rate == 1) / total
    if unprunable >= target and target < 1:
        raise InputError(
            f"--sparsity: layers with a prune rate of 0 hold {unprunable:.2%} of the weights, so no more than "
            f"{1 - unprunable:.2%} can be pruned; raise their rate or lower the sparsity"
        )
    high = 1.0
    while density(high) > target:
        high *= 2
    low = 0.0
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if density(middle) > target else (low, middle)
    return keep(high)


def magnitude(
    weights: Mapping[str, Tensor],
    masks: Masks,
    keep: Mapping[str, float],
    config: PruningConfig,
    kinds: Mapping[str, str],
) -> Masks:
    """New masks that keep the largest magnitudes among the live weights of `masks`, a fraction `keep` of each layer.

    Layerwise, each layer keeps its own fraction; global, the layers of one rate share the number that they keep.
    `weights` and `masks` have the same names, shapes and device. The rest as for `keep_largest`.
    """
    scores = {name: weights[name].detach().abs() for name in masks}
    return keep_largest(scores, masks, keep, pools_of(masks, config, kinds))


def pools_of(layers: Iterable[str], config: PruningConfig, kinds: Mapping[str, str]) -> list[list[str]]:
    """The layers that share the number of weights that they keep: each by itself, or, global, those of one rate."""
    per_round = rates(config, kinds)
    pools: dict[object, list[str]] = {}
    for name in layers:
        pools.setdefault(per_round[name] if config.scope == "global" else name, []).append(name)
    return list(pools.values())


def keep_largest(
    scores: Mapping[str, Tensor], masks: Masks, keep: Mapping[str, float], pools: Iterable[Sequence[str]]
) -> Masks:
    """New masks that keep the highest `scores` among the live weights of `masks`, a fraction `keep` of all weights.

    The layers of one of the `pools` share the number that they keep, whichever of them holds the highest; it is at
    least one. Pruned weights stay pruned; ties go to the weight that comes first.
    """
    pruned: Masks = {}
    for pool in pools:
        alive = torch.cat([masks[name].flatten() for name in pool])
        kept = largest(torch.cat([scores[name].flatten() for name in pool]), alive, number_kept(masks, keep, pool))
        for name, part in zip(pool, kept.split([masks[name].numel() for name in pool]), strict=True):
            pruned[name] = part.reshape(masks[name].shape)
    return {name: pruned[name] for name in masks}


def number_kept(masks: Masks, keep: Mapping[str, float], pool: Iterable[str]) -> int:
    """How many weights the layers of a pool keep together where each is to keep a fraction `keep` of all of its own."""
    return max(1, sum(round(keep[name] * masks[name].numel()) for name in pool))


def largest(scores: Tensor, alive: Tensor, count: int) -> Tensor:
    """bool, True at the `count` largest of `scores` among `alive`, at least one; the first ones win a tie."""
    candidates = scores[alive]
    if count >= len(candidates):
        return alive
    threshold = torch.kthvalue(candidates, len(candidates) - count + 1).values
    above = alive & (scores > threshold)
    tied = (alive & (scores == threshold)).nonzero().flatten()
    above[tied[: count - int(above.sum())]] = True
    return above


def smallest_like(masks: Masks, scores: Mapping[str, Tensor]) -> Masks:
    """The lowest `scores`, as many in each layer as live in `masks`, whichever weights they are of."""
    return {name: _first(mask, scores[name].flatten().argsort(stable=True)) for name, mask in masks.items()}


def shuffled(masks: Masks, seed: int) -> Masks:
    """The same masks, their entries in a random order within each layer."""
    return {name: mask.flatten()[_order(mask, seed, name)].reshape(mask.shape) for name, mask in masks.items()}


def random_like(masks: Masks, seed: int) -> Masks:
    """Random masks with as many live weights in each layer as `masks`: the control that magnitude has to beat."""
    return {name: _first(mask, _order(mask, seed, name)) for name, mask in masks.items()}


def _order(mask: Tensor, seed: int, name: str) -> Tensor:
    return torch.randperm(mask.numel(), generator=generator(seed, name)).to(mask.device)


def _first(mask: Tensor, order: Tensor) -> Tensor:
    """A mask with as many live weights as `mask`: those that come first in this order."""
    flat = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    flat[order[: int(mask.sum())].to(mask.device)] = True
    return flat.reshape(mask.shape)
