"""What torch.vmap makes of the operators: one call on a larger batch where it can, else one for each entry.

A rule gets the operator's arguments, some of which have one dimension more, `in_dims` says which, and returns the
operator's result for all entries at once, the first dimension counting them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Rule = Callable[..., tuple[Tensor, int]]


def _forward(info: Any, in_dims: tuple[Any, ...], x: Tensor, values: Tensor, bias: Tensor | None, *plan: Any) -> Any:
    x_dim, values_dim, bias_dim, *plan_dims = in_dims
    _refuse_plans(plan_dims)
    operator = torch.ops.lth_sparse.forward.default
    if values_dim is None and bias_dim is None:
        output = operator(x.movedim(x_dim, 0).flatten(0, 1), values, bias, *plan)
        return output.unflatten(0, (info.batch_size, -1)), 0
    entries = _entries(info.batch_size, (x, values, bias), in_dims)
    return torch.stack([operator(*each, *plan) for each in entries]), 0


def _grad_input(
    info: Any, in_dims: tuple[Any, ...], grad_out: Tensor, values: Tensor, input_shape: Sequence[int], *plan: Any
) -> Any:
    grad_dim, values_dim, _, *plan_dims = in_dims
    _refuse_plans(plan_dims)
    operator = torch.ops.lth_sparse.grad_input.default
    if values_dim is None:
        batch, *rest = input_shape
        folded = (info.batch_size * batch, *rest)
        gradient = operator(grad_out.movedim(grad_dim, 0).flatten(0, 1), values, folded, *plan)
        return gradient.unflatten(0, (info.batch_size, -1)), 0
    entries = _entries(info.batch_size, (grad_out, values), in_dims)
    return torch.stack([operator(*each, input_shape, *plan) for each in entries]), 0


def _grad_weight(info: Any, in_dims: tuple[Any, ...], x: Tensor, grad_out: Tensor, *plan: Any) -> Any:
    _refuse_plans(in_dims[2:])
    operator = torch.ops.lth_sparse.grad_weight.default
    entries = _entries(info.batch_size, (x, grad_out), in_dims)
    return torch.stack([operator(*each, *plan) for each in entries]), 0


def _entries(count: int, tensors: Sequence[Tensor | None], dims: Sequence[int | None]) -> Iterator[list[Tensor | None]]:
    for index in range(count):
        yield [
            tensor if tensor is None or dim is None else tensor.select(dim, index)
            for tensor, dim in zip(tensors, dims, strict=False)
        ]


def _refuse_plans(dims: Sequence[Any]) -> None:
    if any(dim is not None for dim in tree_leaves(list(dims), is_leaf=lambda dim: dim is None)):
        raise ValueError(
            "plan: got one for each entry of torch.vmap, expected one for all: give the layers that are stacked the "
            "same mask, or call them one by one"
        )


RULES: dict[str, Rule] = {"forward": _forward, "grad_input": _grad_input, "grad_weight": _grad_weight}
"""The rule of each operator, by its name."""
