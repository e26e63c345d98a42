"""What the layers' node in C++ is told of a backend: the matrices of a plan, and which kernels compute each pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lth_sparse.backends import autograd_library, cpu_operators, winograd
from lth_sparse.backends.base import Backend, Plan
from lth_sparse.plans.layer_spec import LayerSpec

_PASSES = ("forward", "grad_input", "grad_weight")
_PYTHON, _SPARSE, _DEPTHWISE, _DENSE = 0, 1, 3, 5
"""As csrc/autograd/layer_plan.h numbers kernels; Winograd's algorithm goes by the size of its tiles."""

Gradients = Callable[
    [Tensor, Tensor | None, Tensor | None, tuple[int, ...], tuple[bool, bool, bool]], tuple[Tensor | None, ...]
]
"""The backward pass in Python, for what is not plain: (grad_out, x, values, shape of x, which of x, values and bias
need a gradient); x and values are None where no needed one depends on them."""


class NodeBackend(Backend, Protocol):
    """A backend whose kernels the node calls by itself."""

    def matrices(self, plan: Plan) -> Plan | None:
        """The `SparsePlan` in it, if there is one."""
        ...

    def chosen(
        self, plan: Plan, passes: Sequence[str], dtype: torch.dtype, input_shape: tuple[int, ...], layout: str
    ) -> Sequence[str] | None:
        """The names of the kernels that compute each of `passes`, None when one is not known yet.

        `layout`: of x and grad_out, "contiguous" or "channels_last".
        """
        ...


@dataclass(frozen=True)
class Node:
    """What `autograd_library.call` takes first, for the mask of one layer; and of what it was made: the plan as an
    operator is given it, and how often the mask had been written to."""

    plan: Any
    tensors: tuple[Tensor, ...]
    ints: tuple[int, ...]
    mask_version: int

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """None: whoever copies a layer gives it a mask of its own, and finds a node when it is packed anew."""


def node(backend: Backend, plan: Plan, gradients: Gradients) -> Node | None:
    """That of a layer with this plan; None where it is not for it."""
    if autograd_library.UNUSABLE or not hasattr(backend, "chosen"):
        return None
    asked: NodeBackend = backend  # type: ignore[assignment]
    matrices = asked.matrices(plan)
    if matrices is None:
        return None
    spec = plan.spec

    def choose(
        shape: tuple[int, ...], element: int, channels_last: bool, grad_x: bool, grad_values: bool
    ) -> tuple[int, ...] | None:
        needed = [name for name, is_needed in zip(_PASSES, (True, grad_x, grad_values), strict=True) if is_needed]
        layout = "channels_last" if channels_last else "contiguous"
        names = asked.chosen(plan, needed, cpu_operators.DTYPES[element], shape, layout)
        if names is None:
            return None
        numbers = {each: _number(name, spec, shape) for each, name in zip(needed, names, strict=True)}
        return tuple(numbers.get(each, _SPARSE) for each in _PASSES)

    tensors, linear = list(matrices.tensors()), spec.kind == "linear"
    made = autograd_library.plan(tensors, spec.to_ints()[1:], linear, choose, gradients)
    mask = plan.pattern.mask
    return Node(made, plan.tensors(), spec.to_ints(), -1 if mask.is_inference() else mask._version)


def _number(kernels: str, spec: LayerSpec, input_shape: Sequence[int]) -> int:
    if kernels == "cpp/winograd":
        return winograd.tile(spec, input_shape)
    return {"cpp/sparse": _SPARSE, "cpp/depthwise": _DEPTHWISE, "dense": _DENSE}.get(kernels, _PYTHON)
