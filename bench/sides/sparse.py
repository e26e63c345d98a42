"""A layer by one of our backends: its forward pass, its gradients, and the packing of its mask."""

from __future__ import annotations

from torch import Tensor

from bench.timing.contest import Side
from lth_sparse.backends import registry
from lth_sparse.backends.base import Plan
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


def sparse_layer(
    name: str, spec: LayerSpec, mask: Tensor, x: Tensor, weight: Tensor, grad_out: Tensor, plan: Plan | None = None
) -> Side:
    """By the backend called `name`. In the layout of the tensors. `plan`: of that mask, if it was packed before."""
    backend, pattern = registry.get(name), Pattern.from_mask(mask)
    plan = plan or backend.pack(pattern, spec)
    values = pattern.gather(weight)
    return {
        "forward": lambda: backend.forward(x, values, plan, None),
        "grad_input": lambda: backend.grad_input(grad_out, values, plan, tuple(x.shape)),
        "grad_weight": lambda: backend.grad_weight(x, grad_out, plan),
    }


def packing(name: str, spec: LayerSpec, mask: Tensor) -> Side:
    """From a mask to the plan of the backend called `name`."""
    return {"pack": lambda: registry.get(name).pack(Pattern.from_mask(mask), spec)}
