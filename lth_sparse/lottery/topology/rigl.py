"""RigL, the rigged lottery: weights grow where the loss is steepest (Evci et al. 2020, section 3; arXiv:1911.11134)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lth_sparse.lottery.topology.interface import Moment
from lth_sparse.nn.masks import Masks


def growth(masks: Masks, moment: Moment) -> Mapping[str, Tensor]:
    """The magnitude of the dense gradient."""
    gradient = moment.gradient()
    return {name: gradient[name].abs() for name in masks}
