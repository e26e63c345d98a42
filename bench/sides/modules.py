"""A layer as it is called in a program: `y = layer(x); y.backward(grad_out)`, with all that Python does around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lth_sparse as lth
from bench.timing.contest import Side
from lth_sparse.plans.layer_spec import LayerSpec


def dense_module(spec: LayerSpec, weight: Tensor) -> nn.Conv2d | nn.Linear:
    """nn.Conv2d or nn.Linear without bias, with a copy of `weight` in its layout."""
    with torch.device("meta"):  # No numbers are drawn: they are given.
        if spec.kind == "linear":
            made: nn.Conv2d | nn.Linear = nn.Linear(spec.in_channels, spec.out_channels, bias=False)
        else:
            geometry = (spec.kernel_size, spec.stride, spec.padding, spec.dilation, spec.groups)
            made = nn.Conv2d(spec.in_channels, spec.out_channels, *geometry, bias=False)
    made.weight = nn.Parameter(weight.clone())
    return made


def sparse_module(backend: str, spec: LayerSpec, mask: Tensor, weight: Tensor) -> nn.Module:
    """The sparse layer of that mask and weight, by the backend of that name."""
    kind = lth.SparseLinear if spec.kind == "linear" else lth.SparseConv2d
    return kind.from_dense(dense_module(spec, weight), mask, backend=backend)  # type: ignore[arg-type]


def step(layer: nn.Module, x: Tensor, grad_out: Tensor) -> Side:
    """Forward and backward; gives the output, x's gradient and that of the layer's one parameter.

    There are no gradients before it: so an optimizer's zero_grad leaves them.
    """
    given, (parameter,) = x.detach().requires_grad_(), layer.parameters()

    def module() -> tuple[Tensor, Tensor | None, Tensor | None]:
        given.grad = parameter.grad = None
        output = layer(given)
        output.backward(grad_out)
        return output.detach(), given.grad, parameter.grad

    return {"module": module}
