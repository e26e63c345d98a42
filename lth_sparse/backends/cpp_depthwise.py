"""The kernels of the cpp backend for depthwise layers, which they take for dense: csrc/cpu/depthwise."""

from __future__ import annotations

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators
from lth_sparse.backends.base import Plan, in_dense_layout, memory_format
from lth_sparse.backends.cpp_kernels import CppKernels
from lth_sparse.backends.registry import register
from lth_sparse.plans.layer_spec import LayerSpec


@register("cpp/depthwise", unusable=cpu_operators.UNUSABLE, kernel_of="cpp")
class DepthwiseKernels(CppKernels):
    """Calls the operators of csrc/depthwise_ops.cpp, which read the pattern as it is; shapes as in `Backend`."""

    name = "cpp/depthwise"

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Depthwise convolutions of 3 x 3 and 5 x 5, stride 1 and 2, in float32 on the CPU."""
        if reason := self.refuses(device):
            return False, reason
        if not computes(spec):
            return False, (
                "the depthwise kernels are for convolutions of each channel by itself, 3 x 3 or 5 x 5, "
                "of stride 1 or 2, without dilation"
            )
        if dtype != torch.float32:
            return False, f"dtype is {dtype}, and the depthwise kernels compute in float32"
        return True, ""

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output; the bias is what the sums begin with."""
        return _forward(x, values, plan, bias, relu=False)

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The same, stored after ReLU."""
        return _forward(x, values, plan, bias, relu=True)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """Each pixel's from the outputs that saw it."""
        gradient: Tensor = torch.ops.lth_sparse_cpu.depthwise_grad_input(
            in_dense_layout(grad_out),
            values.contiguous(),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.spec.to_ints()[1:],
            input_shape,
        )
        return gradient

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The gradient of the whole weight, taken at live positions; the same bits at any number of threads."""
        gradient: Tensor = torch.ops.lth_sparse_cpu.depthwise_grad_weight(
            in_dense_layout(x),
            grad_out.contiguous(memory_format=memory_format(x)),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.spec.to_ints()[1:],
        )
        return gradient


def computes(spec: LayerSpec) -> bool:
    """Whether the kernels compute such a layer, in float32 on the CPU."""
    return (
        spec.kind == "conv2d"
        and spec.groups == spec.in_channels == spec.out_channels
        and spec.kernel_size in ((3, 3), (5, 5))
        and spec.stride in ((1, 1), (2, 2))
        and spec.dilation == (1, 1)
    )


def _forward(x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None, relu: bool) -> Tensor:
    output: Tensor = torch.ops.lth_sparse_cpu.depthwise_forward(
        in_dense_layout(x),
        values.contiguous(),
        bias,
        plan.pattern.row_offsets,
        plan.pattern.column_indices,
        plan.spec.to_ints()[1:],
        relu,
    )
    return output
