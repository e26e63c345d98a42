"""Gradual pruning: from dense to sparse within one training (Zhu and Gupta 2017; arXiv:1710.01878)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from lth_sparse.lottery.pruning import keep_largest, number_kept
from lth_sparse.lottery.topology.interface import Moment, Updates
from lth_sparse.nn.masks import Masks


class Gradual:
    """A `Rule` that keeps the largest of the live weights, ever fewer of them; what is pruned stays so.

    The sparsity of all weights at step t is s_f (1 - (1 - (t - t0) / (n dt))^3) (section 3, with s_i = 0), t0 being the
    first step, n dt from there to the last update. `sparsity`: s_f. `densities(density)`: that of each layer where this
    is left in all. `pools`: the layers that share the number that they keep.
    """

    def __init__(
        self,
        updates: Updates,
        sparsity: float,
        densities: Callable[[float], Mapping[str, float]],
        pools: Sequence[Sequence[str]],
    ) -> None:
        self.updates = updates
        self._sparsity = sparsity
        self._densities = densities
        self._pools = pools

    def sparsity(self, step: int) -> float:
        """Of all weights, after the update before this step."""
        begin, last = self.updates.first, self.updates.last
        return self._sparsity * (1 - (1 - (step - begin) / (last - begin)) ** 3)

    def changed(self, masks: Masks, moment: Moment) -> Masks:
        """By magnitude."""
        return self._pruned(masks, moment.weights, self.sparsity(moment.step))

    def typical(self, masks: Masks, weights: Mapping[str, Tensor]) -> Masks:
        """As after the last update: most of the sparsity comes early."""
        return self._pruned(masks, weights, self._sparsity)

    def live_at_the_end(self, masks: Masks) -> dict[tuple[str, ...], int]:
        """What the final sparsity leaves."""
        keep = self._densities(1 - self._sparsity)
        return {tuple(pool): number_kept(masks, keep, pool) for pool in self._pools}

    def _pruned(self, masks: Masks, weights: Mapping[str, Tensor], sparsity: float) -> Masks:
        scores = {name: weights[name].abs() for name in masks}
        return keep_largest(scores, masks, self._densities(1 - sparsity), self._pools)
