"""Others that train a pruned layer, on the CPU: modules as their own pages say how to make them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.sides.modules import dense_module
from lth_sparse.plans.layer_spec import LayerSpec


@dataclass(frozen=True)
class Drawn:
    """The mask and the dense weight of a layer that draws them itself."""

    mask: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Trained:
    """A module without bias, whose one parameter is its live weights in row-major order. `drawn`: None where it has
    those that it was given."""

    module: nn.Module
    drawn: Drawn | None = None


class _CsrLinear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.to_sparse_csr())

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.t()).t()


def torch_csr(spec: LayerSpec, weight: Tensor) -> Trained:
    """A linear layer whose parameter is torch.sparse_csr, differentiated by PyTorch."""
    return Trained(_CsrLinear(weight))


def sparseprop(spec: LayerSpec, weight: Tensor) -> Trained:
    """SparseProp's layer. Of its two kernels for convolutions the one whose lanes are images."""
    from sparseprop.modules import SparseConv2d, SparseLinear

    dense = dense_module(spec, weight)
    if spec.kind == "linear":
        return Trained(SparseLinear.from_dense(dense))
    return Trained(SparseConv2d.from_dense(dense, vectorizing_over_on=False))


def sparselab(spec: LayerSpec, weight: Tensor) -> Trained:
    """SparseLab's linear layer, which draws mask and weights itself, of the same density."""
    import sparselab

    density = weight.count_nonzero().item() / weight.numel()
    layer = sparselab.SparseLinear(spec.in_channels, spec.out_channels, bias=False, sparsity=1 - density)
    with torch.no_grad():
        own: Tensor = layer(torch.eye(spec.in_channels)).t().contiguous()
    return Trained(layer, Drawn(own != 0, own))
