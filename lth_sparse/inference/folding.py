"""BatchNorm's running statistics, folded into the weights and the bias of the layer before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_sparse.nn.following import NORMS
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.nn.sparse_linear import SparseLinear

Layer = nn.Conv2d | nn.Linear | SparseConv2d | SparseLinear

LAYERS = (nn.Conv2d, nn.Linear, SparseConv2d, SparseLinear)
"""What is folded into: these classes themselves, for a subclass may compute something else."""

_IMAGES = (nn.Conv2d, SparseConv2d)


def folds(layer: Layer, norm: nn.Module | None) -> bool:
    """Whether `norm`, in eval mode, is a scale and a shift of each channel of `layer` that are known."""
    if type(norm) not in (NORMS if type(layer) in _IMAGES else (nn.BatchNorm1d,)):
        return False
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    mean, var, like = norm.running_mean, norm.running_var, _parameter(layer)
    if mean is None or var is None:
        return False
    tensors = (mean, var, norm.weight, norm.bias)
    return norm.num_features == _channels(layer) and all(
        each is None or (each.dtype, each.device) == (like.dtype, like.device) for each in tensors
    )


def fold(layer: Layer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Let `layer` compute what `norm` makes of its output, in place. In float64, rounded once."""
    mean, var = _double(norm.running_mean, 0.0), _double(norm.running_var, 1.0)
    scale = _double(norm.weight, 1.0) / torch.sqrt(var + norm.eps)
    shift = (_double(layer.bias, 0.0) - mean) * scale + _double(norm.bias, 0.0)
    parameter = _parameter(layer)
    with torch.no_grad():
        if isinstance(layer, SparseLayer):
            of_value = scale[layer.mask.cpu().nonzero()[:, 0]]
        else:
            of_value = scale.view(-1, *[1] * (parameter.dim() - 1))
        parameter.copy_(_double(parameter, 0.0) * of_value)
        layer.bias = nn.Parameter(shift.to(parameter.device, parameter.dtype), requires_grad=False)


class VectorsOnly(nn.Module):
    """Stands before a linear layer that took in a BatchNorm1d, which finds the channels of sequences elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, features], as it is. Raises ValueError for any other number of dimensions."""
        if x.dim() != 2:
            raise ValueError(
                f"input: got shape {tuple(x.shape)}, expected [N, features], for lth_sparse.for_inference folded a "
                "BatchNorm1d into the linear layer; give it a hook, and it stays as it is"
            )
        return x


def _parameter(layer: Layer) -> Tensor:
    return layer.values if isinstance(layer, SparseLayer) else layer.weight


def _channels(layer: Layer) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d | SparseConv2d) else layer.out_features


def _double(tensor: Tensor | None, otherwise: float) -> Tensor:
    if tensor is None:
        return torch.tensor(otherwise, dtype=torch.float64)
    return tensor.detach().to("cpu", torch.float64)
