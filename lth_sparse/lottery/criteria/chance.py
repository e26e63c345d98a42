"""Weights that are left to chance, and the densities of layers by their size alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lth_sparse.lottery.criteria.interface import Evidence, Scores
from lth_sparse.nn.masks import Masks
from lth_sparse.system.seeding import generator


def scores(model: nn.Module, masks: Masks, evidence: Evidence) -> Scores:
    """Of a uniform distribution; the same on every device."""
    return {
        name: torch.rand(mask.shape, generator=generator(evidence.seed, name), dtype=torch.float64).to(mask.device)
        for name, mask in masks.items()
    }


def erk(masks: Masks, keep: Mapping[str, float]) -> dict[str, float]:
    """Density of each layer, as many live weights in all as by `keep`: the Erdos-Renyi kernel (Evci et al. 2020, RigL,
    section 3.1; arXiv:1911.11134).

    In proportion to the sum of a weight's sizes over their product, so that small layers stay denser; a layer of which
    that would be more than is alive stays as it is, and the others share the rest. Layers that are to keep different
    fractions share nothing.
    """
    found: dict[str, float] = {}
    for fraction in dict.fromkeys(keep[name] for name in masks):
        found |= _shared({name: mask for name, mask in masks.items() if keep[name] == fraction}, fraction)
    return found


def _shared(masks: Masks, density: float) -> dict[str, float]:
    sizes = {name: mask.numel() for name, mask in masks.items()}
    parts = {name: sum(mask.shape) / mask.numel() for name, mask in masks.items()}
    most = {name: int(mask.sum()) / mask.numel() for name, mask in masks.items()}
    live = density * sum(sizes.values())
    full: set[str] = set()
    while True:
        others = [name for name in masks if name not in full]
        left = live - sum(most[name] * sizes[name] for name in full)
        shared = sum(parts[name] * sizes[name] for name in others)
        factor = left / shared if shared else 0.0
        over = {name for name in others if factor * parts[name] > most[name]}
        if not over:
            return {name: most[name] if name in full else factor * parts[name] for name in masks}
        full |= over
