"""What an output that waits for the steps after it begins with: a BatchNorm, a ReLU or a sparse layer, on one input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from lth_sparse.nn.clamps import RELU, UNBOUNDED, Bounds
from lth_sparse.nn.fused_operators import batch_norm, relu_max_pool

FEWEST_POOLED = 100_000
"""Numbers: a ReLU and a max-pool of fewer are left to PyTorch, whose two calls take less than the one from Python."""
FEWEST_RECTIFIED = 2_000_000
"""The same of a sparse layer's output, as large as with a stride of 1: to wait for ReLU takes some 20 us, which is what
a million of them saves."""


class Beginning(Protocol):
    """`x`: its input, [N, C, H, W] where a pool may follow."""

    x: Tensor

    def clamps(self, bounds: Bounds) -> bool:
        """Whether `apply` takes these."""
        ...

    def pools(self) -> bool:
        """Whether its output is large enough for a 2x2 max-pool, and to gain by it."""
        ...

    def apply(self, residual: Tensor | None, bounds: Bounds, pool: bool) -> Tensor:
        """The output with what follows: `residual` added, clamped to `bounds`, max-pooled 2x2, which goes with ReLU."""
        ...


@dataclass
class Normalization:
    """What a BatchNorm does to one input. The running statistics move once, whoever asks for it first."""

    x: Tensor
    norm: nn.BatchNorm2d
    of_batch: bool
    momentum: float

    def __post_init__(self) -> None:
        moves = not self.norm.training or self.norm.track_running_stats
        self._running = (self.norm.running_mean, self.norm.running_var) if moves else (None, None)

    def clamps(self, bounds: Bounds) -> bool:
        """Any."""
        return True

    def pools(self) -> bool:
        """As its input."""
        return min(self.x.shape[2:]) >= 2

    def apply(self, residual: Tensor | None = None, bounds: Bounds = UNBOUNDED, pool: bool = False) -> Tensor:
        """See `batch_norm`."""
        running, norm = self._running, self.norm
        if self.of_batch:
            self._running = (None, None)
        constants = (self.of_batch, self.momentum, norm.eps)
        return batch_norm(self.x, residual, norm.weight, norm.bias, running, *constants, bounds, pool)


@dataclass
class Rectification:
    """ReLU before a max-pool."""

    x: Tensor

    def clamps(self, bounds: Bounds) -> bool:
        """ReLU is one already."""
        return False

    def pools(self) -> bool:
        """As its input."""
        return self.x.numel() >= FEWEST_POOLED and min(self.x.shape[2:]) >= 2

    def apply(self, residual: Tensor | None, bounds: Bounds, pool: bool) -> Tensor:
        """ReLU, or with the pool."""
        return relu_max_pool(self.x) if pool else F.relu(self.x)


class Layer(Protocol):
    """A sparse layer."""

    bias: nn.Parameter | None

    def _output(self, input: Tensor, relu: bool = False, bias_apart: bool = False) -> Tensor: ...

    def _output_shape(self, input: Tensor) -> tuple[int, ...]: ...


@dataclass
class LayerOutput:
    """What a sparse layer makes of one input, before ReLU, which is in its store, its gradient with the bias's."""

    x: Tensor
    layer: Layer

    def clamps(self, bounds: Bounds) -> bool:
        """ReLU alone."""
        return bounds == RELU

    def pools(self) -> bool:
        """As its output."""
        return min(self.layer._output_shape(self.x)[2:], default=0) >= 2

    def apply(self, residual: Tensor | None, bounds: Bounds, pool: bool) -> Tensor:
        """There is no residual."""
        if not pool:
            return self.layer._output(self.x, relu=bounds == RELU)
        # The sums that are the bias's gradient are read off the pooled gradient, a quarter of the layer's own.
        return relu_max_pool(self.layer._output(self.x, bias_apart=True), self.layer.bias)
