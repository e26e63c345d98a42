"""SET, sparse evolutionary training: weights grow at random (Mocanu et al. 2018, doi:10.1038/s41467-018-04316-3).

Theirs begin as the network's first ones were drawn; here, as in RigL's paper, which runs both by one schedule, with 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lth_sparse.lottery.topology.interface import Moment
from lth_sparse.nn.masks import Masks
from lth_sparse.system.seeding import generator


def growth(masks: Masks, moment: Moment) -> Mapping[str, Tensor]:
    """Of a uniform distribution; the same on every device."""
    return {
        name: torch.rand(mask.shape, generator=generator(moment.seed, name), dtype=torch.float64).to(mask.device)
        for name, mask in masks.items()
    }
