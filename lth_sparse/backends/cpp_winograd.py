"""The kernels of the cpp backend that take a 3 x 3 layer for dense, and compute it by Winograd's algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators, winograd
from lth_sparse.backends.base import Plan, in_dense_layout
from lth_sparse.backends.cpp_kernels import CppKernels
from lth_sparse.backends.registry import register
from lth_sparse.plans.layer_spec import LayerSpec


@register("cpp/winograd", unusable=cpu_operators.UNUSABLE, kernel_of="cpp")
class WinogradKernels(CppKernels):
    """Calls the operators of csrc/winograd_ops.cpp, which read the pattern as it is; shapes as in `Backend`."""

    name = "cpp/winograd"

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """3 x 3 convolutions of stride 1 in float32 on the CPU."""
        if reason := self.refuses(device):
            return False, reason
        if winograd.setting() == "off":
            return False, "Winograd's algorithm is set off"
        if not winograd.computes(spec):
            return False, "Winograd's algorithm is for 3 x 3 convolutions without stride, dilation and groups"
        if dtype != torch.float32:
            return False, f"dtype is {dtype}, and Winograd's algorithm is there in float32"
        return True, ""

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output, the bias added to each tile."""
        return _forward(x, values, plan, bias, relu=False)

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The same, each tile after ReLU."""
        return _forward(x, values, plan, bias, relu=True)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The convolution of grad_out with the kernels turned by half, the channels exchanged."""
        gradient: Tensor = torch.ops.lth_sparse_cpu.winograd_grad_input(
            in_dense_layout(grad_out),
            values.contiguous(),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.spec.to_ints()[1:],
            input_shape,
            winograd.tile(plan.spec, input_shape),
        )
        return gradient

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The gradient of the whole weight, taken at live positions; the same bits at any number of threads."""
        gradient: Tensor = torch.ops.lth_sparse_cpu.winograd_grad_weight(
            in_dense_layout(x),
            in_dense_layout(grad_out),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.spec.to_ints()[1:],
            winograd.tile(plan.spec, x.shape),
        )
        return gradient


def _forward(x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None, relu: bool) -> Tensor:
    output: Tensor = torch.ops.lth_sparse_cpu.winograd_forward(
        in_dense_layout(x),
        values.contiguous(),
        bias,
        plan.pattern.row_offsets,
        plan.pattern.column_indices,
        plan.spec.to_ints()[1:],
        winograd.tile(plan.spec, x.shape),
        relu,
    )
    return output
