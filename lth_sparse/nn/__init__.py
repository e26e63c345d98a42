"""Drop-in sparse layers."""

from lth_sparse.nn.changing_masks import get_masks, set_masks
from lth_sparse.nn.fusing import fuse
from lth_sparse.nn.parameter_groups import parameter_groups
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.nn.sparse_linear import SparseLinear
from lth_sparse.nn.sparsify import densify, sparsify

__all__ = [
    "SparseConv2d",
    "SparseLayer",
    "SparseLinear",
    "densify",
    "fuse",
    "get_masks",
    "parameter_groups",
    "set_masks",
    "sparsify",
]
