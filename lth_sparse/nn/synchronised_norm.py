"""BatchNorm whose statistics in training are those of the whole batch, of which each process has a part.

torch.nn.SyncBatchNorm is for GPUs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lth_sparse.system import processes
from lth_sparse.system.errors import InputError


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """What the three have."""

    def forward(self, input: Tensor) -> Tensor:
        """input [N, C, ...] of this process; the same shape, by the statistics of all processes' inputs."""
        if not self.training or processes.count() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        running = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        output: Tensor = _BatchNorm.apply(input, self.weight, self.bias, *running, momentum, self.eps)
        return output


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """nn.BatchNorm1d, synchronised in training."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """nn.BatchNorm2d, synchronised in training."""


class SynchronisedBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """nn.BatchNorm3d, synchronised in training."""


_OF: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    nn.BatchNorm3d: SynchronisedBatchNorm3d,
}


def synchronise(model: nn.Module) -> nn.Module:
    """Lets the BatchNorms of `model` be synchronised, in place; gives `model`. Raises InputError for one of a class of
    its own, which may do more than normalise."""
    for name, module in model.named_modules():
        if type(module) in _OF:
            # By their class, so that names, hooks, and references to them stay what they are.
            module.__class__ = _OF[type(module)]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not is_synchronised(module):
            raise InputError(
                f"--batch-norm synchronised: {name} is a {type(module).__name__}, expected nn.BatchNorm1d, 2d or 3d; "
                "give --batch-norm local"
            )
    return model


def is_synchronised(module: nn.Module) -> bool:
    """Whether `module` is one of them."""
    return isinstance(module, _Synchronised)


def has_norm(model: nn.Module) -> bool:
    """Whether `model` has any BatchNorm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


class _BatchNorm(Function):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, by the mean and the variance over all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        epsilon: float,
    ) -> Tensor:
        variance, mean = torch.var_mean(x, _but_channels(x), correction=0)
        number = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
        # In float64, in which the mean of the squares less the square of the mean is as good as the variance itself.
        of_part = mean.double()
        sums = processes.summed(torch.cat([number, number * of_part, number * (variance.double() + of_part.square())]))
        number, means, squares = sums[:1], *(sums[1:] / sums[:1]).chunk(2)
        variances = (squares - means.square()).clamp_min_(0)
        mean, variance = means.to(x.dtype), variances.to(x.dtype)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variances * (number / (number - 1))).to(running_var.dtype), momentum)
        ctx.save_for_backward(x, weight, mean, (variances + epsilon).rsqrt().to(x.dtype), number)
        return functional.batch_norm(x, mean, variance, weight, bias, eps=epsilon)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, number = ctx.saved_tensors
        others = _but_channels(x)
        normal = (x - _of_channels(mean, x)).mul_(_of_channels(inverse_deviation, x))
        grad_bias, grad_weight = grad_out.sum(others), (grad_out * normal).sum(others)
        means = processes.summed(torch.cat([grad_bias, grad_weight]).double()) / number
        mean_grad, mean_product = (_of_channels(each.to(x.dtype), x) for each in means.chunk(2))
        factor = inverse_deviation if weight is None else inverse_deviation * weight
        grad_x = (grad_out - mean_grad).sub_(normal.mul_(mean_product)).mul_(_of_channels(factor, x))
        wanted = ctx.needs_input_grad
        return (grad_x, grad_weight if wanted[1] else None, grad_bias if wanted[2] else None, *(None,) * 4)


def _but_channels(x: Tensor) -> list[int]:
    return [dimension for dimension in range(x.dim()) if dimension != 1]


def _of_channels(numbers: Tensor, x: Tensor) -> Tensor:
    return numbers.view(1, -1, *(1,) * (x.dim() - 2))
