"""Sparse layers with the ReLU that follows them, and ReLU with the max-pool that follows it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lth_sparse.nn.fused_operators import relu_max_pool, takes
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.sparse_linear import SparseLinear


class RectifiedConv2d(SparseConv2d):
    """SparseConv2d, then ReLU: in the kernel's store where the backend has it. Made by `lth_sparse.for_inference`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, in_channels, H, W] or [in_channels, H, W] -> [N, out_channels, H_out, W_out], or without N."""
        return self._output(input, relu=True)


class RectifiedLinear(SparseLinear):
    """SparseLinear, then ReLU: in the kernel's store where the backend has it. Made by `lth_sparse.for_inference`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return self._output(input, relu=True)


class ReLUMaxPool2d(nn.Module):
    """ReLU, then the 2x2 max-pool, as one operator where there is one. Made by `lth_sparse.for_inference`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] or [C, H, W] -> [N, C, H / 2, W / 2], rounded down, or without N."""
        if takes(input) and min(input.shape[2:]) >= 2:
            return relu_max_pool(input)
        return F.max_pool2d(F.relu(input), 2)


RECTIFIED: dict[type, type] = {SparseConv2d: RectifiedConv2d, SparseLinear: RectifiedLinear}
