"""What is timed: a layer's forward and backward pass, and a network's training step, dense and ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.measure import Side
from lth_sparse.backends import registry
from lth_sparse.backends.base import Plan
from lth_sparse.nn.masks import Masks, prunable
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


def dense_layer(spec: LayerSpec, x: Tensor, weight: Tensor, grad_out: Tensor) -> Side:
    """As autograd calls PyTorch: one call for both gradients of a convolution. In the layout of the tensors."""
    if spec.kind == "linear":
        return {
            "forward": lambda: F.linear(x, weight),
            "backward": lambda: (grad_out @ weight, grad_out.t() @ x),
        }
    geometry = (spec.stride, spec.padding, spec.dilation)
    return {
        "forward": lambda: F.conv2d(x, weight, None, *geometry, spec.groups),
        "backward": lambda: torch.ops.aten.convolution_backward(
            grad_out, x, weight, None, *geometry, False, (0, 0), spec.groups, (True, True, False)
        )[:2],
    }


def dense_gradients(spec: LayerSpec, x: Tensor, weight: Tensor, grad_out: Tensor) -> Side:
    """Each gradient in a call of its own: what a layer costs that needs one of them only."""
    if spec.kind == "linear":
        return {"grad_input": lambda: grad_out @ weight, "grad_weight": lambda: grad_out.t() @ x}

    def gradients(wanted: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            grad_out, x, weight, None, spec.stride, spec.padding, spec.dilation, False, (0, 0), spec.groups, wanted
        )
        return found

    return {
        "grad_input": lambda: gradients((True, False, False))[0],
        "grad_weight": lambda: gradients((False, True, False))[1],
    }


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


def random_masks(model: nn.Module, sparsity: float) -> Masks:
    """Masks that keep each weight with the same chance, in every layer."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(weight.shape, generator=generator) >= sparsity for name, weight in prunable(model).items()}
