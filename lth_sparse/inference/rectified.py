"""Sparse layers with the ReLU that follows them."""

from __future__ import annotations

from torch import Tensor

from lth_sparse import ops
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_linear import SparseLinear


class RectifiedConv2d(SparseConv2d):
    """SparseConv2d, then ReLU: in the kernel's store where the backend has it. Made by `lth_sparse.for_inference`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, in_channels, H, W] or [in_channels, H, W] -> [N, out_channels, H_out, W_out], or without N."""
        padding = (self._input_padding, self.padding_mode)
        return ops.conv2d(input, self.values, self.bias, self.plan, self.computed_by, *padding, relu=True)


class RectifiedLinear(SparseLinear):
    """SparseLinear, then ReLU: in the kernel's store where the backend has it. Made by `lth_sparse.for_inference`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return ops.linear(input, self.values, self.bias, self.plan, self.computed_by, relu=True)


RECTIFIED: dict[type, type] = {SparseConv2d: RectifiedConv2d, SparseLinear: RectifiedLinear}
