"""The specification: what every backend computes, written as masked dense PyTorch. Slow, obvious, any dtype.

`mask` is bool of the weight's dense shape, `values` [nnz] its live weights in row-major order. Gradients come
from torch.autograd through the masked dense forward, so nothing here knows a backward formula.

NaN and Inf: the kernels touch live weights only, so a pruned weight contributes exactly nothing, and 0 x Inf
or 0 x NaN of a pruned weight is 0. The dense reference multiplies by the zero and gives NaN there: with
activations that are not finite, compare over the live weights only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lth_sparse.plans.layer_spec import LayerSpec


def masked_weight(values: Tensor, mask: Tensor) -> Tensor:
    """The dense weight, of `mask`'s shape: `values` where the mask is True, 0 elsewhere."""
    weight = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    weight[mask] = values
    return weight


def forward(x: Tensor, values: Tensor, bias: Tensor | None, mask: Tensor, spec: LayerSpec) -> Tensor:
    """The layer's output: [N, C_out, H_out, W_out] for x [N, C_in, H, W], or [M, out] for x [M, in]."""
    weight = masked_weight(values, mask)
    if spec.kind == "linear":
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, spec.stride, spec.padding, spec.dilation, spec.groups)


def grad_input(grad_out: Tensor, values: Tensor, mask: Tensor, spec: LayerSpec, input_shape: tuple[int, ...]) -> Tensor:
    """The gradient of the input, of `input_shape`, given `grad_out` of the output's shape."""
    # A layer is linear in its input: the gradient is the same wherever it is taken, so at zero.
    x = torch.zeros(input_shape, dtype=values.dtype, device=values.device, requires_grad=True)
    return torch.autograd.grad(forward(x, values, None, mask, spec), x, grad_out)[0]


def grad_weight(x: Tensor, grad_out: Tensor, mask: Tensor, spec: LayerSpec) -> Tensor:
    """The gradient of the live weights, [nnz] in row-major order, given `grad_out` of the output's shape."""
    values = torch.zeros(int(mask.sum()), dtype=x.dtype, device=x.device, requires_grad=True)
    return torch.autograd.grad(forward(x, values, None, mask, spec), values, grad_out)[0]
