"""BatchNorm2d and ReLU that compute what follows them together with themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from lth_sparse.nn.beginnings import Normalization, Rectification
from lth_sparse.nn.clamps import RELU
from lth_sparse.nn.fused_operators import takes
from lth_sparse.nn.leaves import as_leaf
from lth_sparse.nn.unfinished import Unfinished
from lth_sparse.nn.watched import is_watched


class _Fused(nn.Module):
    """What both have: `followers`, the modules that come next, and what is expected of them."""

    followers: tuple[nn.Module, ...]
    pools: bool


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
        normalization = Normalization(x, self, of_batch, momentum)
        if not self.adds and not self.clamps:
            return normalization.apply()
        return Unfinished(normalization, adds=self.adds, clamps=self.clamps, pools=self.pools)

    def _is_taken(self, x: Tensor, of_batch: bool) -> bool:
        tensors = (self.weight, self.bias, self.running_mean, self.running_var)
        return (
            takes(x)
            and x.shape[1] == self.num_features
            and (not of_batch or x.numel() > x.shape[1])
            and (of_batch or (self.running_mean is not None and self.running_var is not None))
            and all(t is None or (t.dtype == torch.float32 and t.device == x.device) for t in tensors)
            and not is_watched(self, self.followers)
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
        beginning = Rectification(x)
        if not takes(x) or not beginning.pools() or (self.inplace and not self.alone):
            return super().forward(x)
        if is_watched(self, self.followers):
            return super().forward(x)
        return Unfinished(beginning, bounds=RELU, pools=True)
