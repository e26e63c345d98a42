"""SynFlow: what flows through a weight of the network of absolute values (Tanaka et al. 2020; arXiv:2006.05467).

Without data. Scored anew over 100 steps of pruning, which is what keeps a layer from being cut through; scoring once
does not.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from lth_sparse.lottery.criteria.interface import Evidence, Scores, slopes_of, weights_of
from lth_sparse.nn.masks import Masks

STEPS = 100
ADDED = ("bias", "running_mean")
"""What adds to a layer's output. The paper's theorems have none: flow that came in there would pass a layer by that is
cut through."""


def scores(model: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    """|weight * dR/dweight|, R the sum of the outputs for an input of ones, parameters and buffers by their absolute
    values, without biases; in evaluation mode and float64, in which hundreds of layers neither overflow nor vanish."""
    assert evidence.example is not None
    linear = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for name, tensor in linear.state_dict().items():
            if name.rpartition(".")[2] in ADDED:
                tensor.zero_()
            elif tensor.is_floating_point():
                tensor.abs_()
    weights = weights_of(linear, masks)
    ones = torch.ones_like(evidence.example[:1], dtype=torch.float64)
    with torch.enable_grad():
        slopes = slopes_of(linear(ones).sum(), weights)
    return {name: (weight * slopes[name]).abs() for name, weight in weights.items()}
