"""What the operators cost, for torch.utils.flop_counter: two operations a live weight and position of the output.

So PyTorch counts a dense layer, zero padding included and the bias left out. With nothing pruned the counts are equal,
but for gradients of grouped convolutions, of which PyTorch counts too many. They are those of the sparse computation,
whichever backend computes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod
from typing import Any

import torch


def _forward(x: Any, values: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return _count(values, out_shape)


def _grad_input(grad_out: Sequence[int], values: Sequence[int], *_: Any, **__: Any) -> int:
    return _count(values, grad_out)


def _grad_weight(x: Any, grad_out: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return _count(out_shape, grad_out)


def _count(values: Sequence[int], output: Sequence[int]) -> int:
    """For shapes [nnz] and [N, C_out, ...]."""
    batch, _, *size = output
    return 2 * prod(values) * batch * prod(size)


def register() -> None:
    """Make the formulas known to FlopCounterMode, once the operators are there."""
    log = logging.getLogger("torch.utils.flop_counter")
    level = log.level
    # Where triton is missing, PyTorch's module says at once that Triton's kernels will not be counted.
    log.setLevel(logging.ERROR)
    try:
        from torch.utils.flop_counter import register_flop_formula
    finally:
        log.setLevel(level)
    operators = torch.ops.lth_sparse
    register_flop_formula(operators.forward)(_forward)
    register_flop_formula(operators.grad_input)(_grad_input)
    register_flop_formula(operators.grad_weight)(_grad_weight)
