"""The mask of a layer while somebody looks on: wrapped by a transform of torch.func, or without entries in a trace."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lth_sparse.backends.base import Plan


def is_fake(mask: Tensor) -> bool:
    """Whether it stands for one in a trace, which has a shape and no entries."""
    return isinstance(mask, FakeTensor)


def seen(plan: Plan, mask: Tensor) -> Plan:
    """The plan, with the tensor that stands for its mask in a trace, so that what is traced has the layer's buffer."""
    return replace(plan, pattern=replace(plan.pattern, mask=mask))


def unwrapped(mask: Tensor) -> Tensor:
    """The mask itself, the same tensor where it can be; of those that torch.vmap has stacked, the first.

    Raises ValueError when they are not all the same.
    """
    functorch = torch._C._functorch
    dims: list[int] = []
    while functorch.is_functorch_wrapped_tensor(mask):
        if functorch.is_batchedtensor(mask):
            dims.insert(0, functorch.maybe_get_bdim(mask))
        mask = functorch.get_unwrapped(mask)
    if not dims:
        return mask
    with torch._C._DisableFuncTorch():
        for count, dim in enumerate(dims):
            mask = mask.movedim(dim + count, count)
        masks = mask.flatten(0, len(dims) - 1)
        if (masks != masks[:1]).any():
            raise ValueError(
                "mask: got different ones for layers that torch.vmap stacks, expected the same for all: "
                "call the models one by one"
            )
        return masks[0]
