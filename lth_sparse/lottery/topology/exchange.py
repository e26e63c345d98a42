"""Dynamic sparse training: from time to time the smallest live weights go, and as many others come (SET, RigL)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from lth_sparse.lottery.pruning import largest
from lth_sparse.lottery.topology.interface import Moment, Updates
from lth_sparse.nn.masks import Masks

FIRST_FRACTION = 0.3
"""Of a layer's live weights: what an update would exchange at the beginning (Evci et al. 2020, section 4)."""

Growth = Callable[[Masks, Moment], Mapping[str, Tensor]]
"""Scores of all weights of the layers in the masks: of those that may grow, the highest do."""


class Exchange:
    """A `Rule` that drops the live weights of smallest magnitude in each layer and grows as many.

    The fraction dropped falls with the step, from `FIRST_FRACTION` to 0 at the end of the updates, by half a cosine;
    rounded down to whole weights (Evci et al. 2020, section 3 and algorithm 1; arXiv:1911.11134). What may grow is all
    that is not alive once they are dropped, those among them: one that grows again in the same update has not changed,
    as in the authors' code. Layers whose weights are all alive stay so.
    """

    def __init__(self, updates: Updates, growth: Growth) -> None:
        self.updates = updates
        self._growth = growth

    def fraction(self, step: int) -> float:
        """Of its live weights: what a layer exchanges before this step."""
        begin, end = self.updates.first, self.updates.end
        return FIRST_FRACTION / 2 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))

    def changed(self, masks: Masks, moment: Moment) -> Masks:
        """As many live weights in each layer."""
        fraction = self.fraction(moment.step)
        dropped = {name: int(fraction * int(mask.sum())) for name, mask in masks.items()}
        moving = {name: mask for name, mask in masks.items() if dropped[name] and not bool(mask.all())}
        scores = self._growth(moving, moment) if moving else {}
        found = dict(masks)
        for name, mask in moving.items():
            alive = mask.flatten()
            kept = largest(moment.weights[name].abs().flatten(), alive, int(alive.sum()) - dropped[name])
            grown = largest(scores[name].flatten(), ~kept, dropped[name])
            found[name] = (kept | grown).reshape(mask.shape)
        return found

    def typical(self, masks: Masks, weights: Mapping[str, Tensor]) -> Masks:
        """As dense as all others."""
        return masks

    def live_at_the_end(self, masks: Masks) -> dict[tuple[str, ...], int]:
        """As many in each layer as at the beginning."""
        return {(name,): int(mask.sum()) for name, mask in masks.items()}
