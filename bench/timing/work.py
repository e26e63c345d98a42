"""What a layer has to do at least: multiplications and additions of live weights, and bytes moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.timing.ceilings import Ceilings
from lth_sparse import reference
from lth_sparse.plans.layer_spec import LayerSpec

FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Work:
    """`operations`: multiplications and additions. `moved`: bytes, each tensor that is read or written counted once."""

    operations: float
    moved: float


def least_seconds(works: Sequence[Work], ceilings: Ceilings) -> float:
    """One after the other, each bound by arithmetic or by memory. What stays in a cache can go below it."""
    return sum(max(work.operations / ceilings.fma_gflops, work.moved / ceilings.bandwidth_gbs) / 1e9 for work in works)


def of_layer(spec: LayerSpec, mask: Tensor, input_shape: tuple[int, ...]) -> dict[str, Work]:
    """Of the forward pass and of each gradient, in float32, by name."""
    ones = torch.ones((1, *input_shape[1:]), dtype=torch.float64)
    # An output of ones is the number of its products: those with padding are not among them.
    products = reference.forward(ones, torch.ones(int(mask.sum()), dtype=torch.float64), None, mask.cpu(), spec)
    operations = 2.0 * input_shape[0] * float(products.sum())
    image_in, image_out, values = ones.numel(), products.numel(), int(mask.sum())
    # Each reads two of input, output and values, and writes the third.
    moved = FLOAT * (input_shape[0] * (image_in + image_out) + values)
    return {name: Work(operations, moved) for name in ("forward", "grad_input", "grad_weight")}
