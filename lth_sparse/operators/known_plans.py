"""The passes of layers whose plan the node in C++ knows, for the operators: past the checks and the plans of Python.

An operator is given its plan anew at each call, tensor by tensor. Where these are the very tensors of a layer that
lives, nothing is left to unpack or to check but the numbers, which the library does.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from weakref import WeakValueDictionary

from torch import Tensor

from lth_sparse.backends import autograd_library
from lth_sparse.backends.autograd_node import Node
from lth_sparse.backends.base import Plan

_nodes: WeakValueDictionary[tuple[int, str], Node] = WeakValueDictionary()
"""By the mask, which a node keeps alive as long as it is in here itself, and the backend."""


def remember(node: Node, plan: Plan, backend: str) -> None:
    """Lets the operators find `node`, of a layer with this plan of `backend`."""
    _nodes[id(plan.pattern.mask), backend] = node


def forward(
    x: Tensor, values: Tensor, bias: Tensor | None, tensors: Sequence[Tensor], ints: Sequence[int], backend: str
) -> Tensor | None:
    """The output; None where the plan is not known, what is given does not fit it, or kernels in Python compute it."""
    node = _known(tensors, ints, backend)
    return None if node is None else autograd_library.forward(node.plan, x, values, bias)


def grad_input(
    grad_out: Tensor,
    values: Tensor,
    input_shape: Sequence[int],
    tensors: Sequence[Tensor],
    ints: Sequence[int],
    backend: str,
) -> Tensor | None:
    """The gradient of x, or None."""
    node = _known(tensors, ints, backend)
    return None if node is None else autograd_library.grad_input(node.plan, grad_out, values, input_shape)


def grad_weight(
    x: Tensor, grad_out: Tensor, tensors: Sequence[Tensor], ints: Sequence[int], backend: str
) -> Tensor | None:
    """The gradient of the values, or None."""
    node = _known(tensors, ints, backend)
    return None if node is None else autograd_library.grad_weight(node.plan, x, grad_out)


def _known(tensors: Sequence[Tensor], ints: Sequence[int], backend: str) -> Node | None:
    mask = tensors[0]
    node = _nodes.get((id(mask), backend))
    if node is None or len(tensors) != len(node.tensors) or not all(map(is_, tensors, node.tensors)):
        return None
    fits = tuple(ints) == node.ints and not mask.is_inference() and mask._version == node.mask_version
    return node if fits else None
