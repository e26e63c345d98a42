"""Criteria that ask what the loss would make of a weight: SNIP and GraSP. Both look at training mode, on a copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.lottery.criteria.interface import Evidence, Scores, slopes_of, weights_of
from lth_sparse.nn.masks import Masks

TEMPERATURE = 200.0
"""Of the logits, for GraSP, as in its authors' code: the softmax is nearly uniform then."""


def snip(model: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    """Connection sensitivity: |weight * gradient| (Lee et al. 2019, section 4; arXiv:1810.02340)."""
    weights = weights_of(model, masks)
    slopes = slopes_of(_loss(model.train(), evidence), weights)
    return {name: (weight * slopes[name]).abs() for name, weight in weights.items()}


def grasp(model: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    """How much the gradient's norm would fall without the weight: weight * (Hessian gradient), the highest live (Wang
    et al. 2020, section 4; arXiv:2002.07376, whose score has the other sign)."""
    weights = weights_of(model, masks)
    cooled = _Cooled(model.train())
    slopes = slopes_of(_loss(cooled, evidence), weights, again=True)
    product = torch.stack([(slope.detach() * slope).sum() for slope in slopes.values()]).sum()
    curvature = slopes_of(product, weights)
    return {name: weight * curvature[name] for name, weight in weights.items()}


class _Cooled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **others: Any) -> Any:
        return self.model(*inputs, **others) / TEMPERATURE


def _loss(model: nn.Module, evidence: Evidence) -> Tensor:
    assert evidence.loss is not None
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(evidence.seed)  # Of dropout.
        return evidence.loss(model)
