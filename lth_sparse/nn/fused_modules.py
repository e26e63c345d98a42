"""BatchNorm2d and ReLU that compute what follows them together with themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import _has_any_global_hook

from lth_sparse.nn.clamps import RELU
from lth_sparse.nn.fused_operators import takes
from lth_sparse.nn.leaves import as_leaf
from lth_sparse.nn.unfinished import Normalization, Unfinished

FEWEST_POOLED = 100_000
"""Numbers: a ReLU and a max-pool of fewer are left to PyTorch, whose two calls take less than the one from Python."""


def hooked(module: nn.Module) -> bool:
    """Whether somebody sees what goes into `module`, or comes out."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class _Fused(nn.Module):
    """What both have: `followers`, the modules that come next, and what is expected of them."""

    followers: tuple[nn.Module, ...]
    pools: bool

    def _is_watched(self) -> bool:
        return _has_any_global_hook() or hooked(self) or any(map(hooked, self.followers))


class FusedBatchNorm2d(_Fused, nn.BatchNorm2d):
    """nn.BatchNorm2d, maybe before an addition, a ReLU or another clamp, or both; or before a ReLU and a max-pool.

    What the operators do not take is nn.BatchNorm2d's. Made by `lth_sparse.fuse`, of an nn.BatchNorm2d.
    """

    adds: bool
    clamps: bool

    def forward(self, x: Tensor) -> Any:
        """x [N, C, H, W]; the same shape, not yet computed where what follows will be computed with it."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        if isinstance(x, fx.Proxy):
            return as_leaf(self, x)
        of_batch = self.training or (self.running_mean is None and self.running_var is None)
        if not self._is_taken(x, of_batch):
            return super().forward(x)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        normalization = Normalization(self, of_batch, momentum)
        if not self.adds and not self.clamps:
            return normalization.apply(x)
        return Unfinished(x, normalization, adds=self.adds, clamps=self.clamps, pools=self.pools)

    def _is_taken(self, x: Tensor, of_batch: bool) -> bool:
        tensors = (self.weight, self.bias, self.running_mean, self.running_var)
        return (
            takes(x)
            and x.shape[1] == self.num_features
            and (not of_batch or x.numel() > x.shape[1])
            and (of_batch or (self.running_mean is not None and self.running_var is not None))
            and all(t is None or (t.dtype == torch.float32 and t.device == x.device) for t in tensors)
            and not self._is_watched()
        )


class FusedReLU(_Fused, nn.ReLU):
    """nn.ReLU before a 2x2 max-pool; `alone` says that nobody else sees its input.

    What the operators do not take is nn.ReLU's. Made by `lth_sparse.fuse`, of an nn.ReLU.
    """

    alone: bool

    def forward(self, x: Tensor) -> Any:
        """x of any shape; the same shape, not yet computed where the operator will compute it."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        if isinstance(x, fx.Proxy):
            return as_leaf(self, x)
        if not takes(x) or x.numel() < FEWEST_POOLED or min(x.shape[2:]) < 2:
            return super().forward(x)
        if (self.inplace and not self.alone) or self._is_watched():
            return super().forward(x)
        return Unfinished(x, None, bounds=RELU, pools=True)
