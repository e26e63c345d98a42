"""Topologies that change while a network is trained: rules by name, and which one a run's settings ask for.

To add one: a `Rule` in a file of its own, made in `rule_of`; an exchange of weights at a fixed number of them is a way
to score those that may grow, entered in `GROWTH`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lth_sparse.lottery.pruning import densities, pools_of
from lth_sparse.lottery.topology import rigl, sparse_evolutionary
from lth_sparse.lottery.topology.exchange import Exchange, Growth
from lth_sparse.lottery.topology.gradual import Gradual
from lth_sparse.lottery.topology.interface import Rule, Updates
from lth_sparse.settings.config import PruningConfig

GROWTH: dict[str, Growth] = {
    "set": sparse_evolutionary.growth,  # Mocanu et al. 2018.
    "rigl": rigl.growth,  # Evci et al. 2020.
}
"""By the values of --dynamic but `none`."""


def rule_of(
    config: PruningConfig, sizes: Mapping[str, int], kinds: Mapping[str, str], first: int, total: int
) -> Rule | None:
    """The rule that the settings ask for, None where they ask for none, of a training from step `first` to step
    `total`. `sizes`, `kinds`: of each layer its number of weights, and what it is.

    Raises InputError where the training is too short for one update.
    """
    if config.schedule != "gradual" and config.dynamic == "none":
        return None
    updates = Updates(first, config.update_every, total)
    updates.check()
    if config.schedule == "gradual":
        assert config.sparsity is not None
        left = partial(densities, config, sizes=sizes, kinds=kinds)
        return Gradual(updates, config.sparsity, left, pools_of(sizes, config, kinds))
    return Exchange(updates, GROWTH[config.dynamic])
