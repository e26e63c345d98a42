"""A layer in dense PyTorch: its forward pass and its gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec


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
