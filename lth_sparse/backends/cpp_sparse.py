"""The sparse kernels of the cpp backend: those of csrc/cpu that touch live weights only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lth_sparse.backends import cpu_operators
from lth_sparse.backends.base import Plan, in_dense_layout
from lth_sparse.backends.cpp_kernels import CppKernels
from lth_sparse.backends.registry import register
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


@dataclass(frozen=True, eq=False)
class SparsePlan(Plan):
    """The pattern, and the transposed matrix that grad_input runs over.

    Its rows are the input channels, once for each phase of the stride; a column is output channel * taps + tap.
    """

    transposed_row_offsets: Tensor
    """int32 [stride_height * stride_width * in_channels + 1]."""
    transposed_columns: Tensor
    """int32 [nnz], ascending within a row."""
    transposed_order: Tensor
    """int32 [nnz]: the place of each entry in the values."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern's, then the transposed matrix."""
        transposed = (self.transposed_row_offsets, self.transposed_columns, self.transposed_order)
        return (*self.pattern.tensors(), *transposed)


@register("cpp/sparse", unusable=cpu_operators.UNUSABLE, kernel_of="cpp")
class SparseKernels(CppKernels):
    """Calls the operators of csrc/ops.cpp; shapes as in `Backend`."""

    name = "cpp/sparse"

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Layers in the dtypes of csrc/cpu/element.h on the CPU, but for such as csrc/layer_arguments.h refuses."""
        if reason := self.refuses(device):
            return False, reason
        if dtype not in cpu_operators.DTYPES:
            return False, f"dtype is {dtype}, and the C++ kernels take float32, float64, bfloat16 and float16"
        # No compiler can call the operator; what it traces are layers that were packed, and so are not refused.
        reason = "" if torch.compiler.is_compiling() else _refused(spec)
        return not reason, reason

    def pack(self, pattern: Pattern, spec: LayerSpec) -> SparsePlan:
        """Transposes the pattern."""
        transposed = torch.ops.lth_sparse_cpu.pack(pattern.row_offsets, pattern.column_indices, spec.to_ints()[1:])
        return SparsePlan(spec, pattern, *transposed)

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> SparsePlan:
        """The plan again."""
        return SparsePlan.from_tensors(tensors, spec)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """Each live weight times the pixels that it meets; the bias goes into the accumulators."""
        return _forward(x, values, plan, bias, relu=False)

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The same; the accumulators are stored after ReLU."""
        return _forward(x, values, plan, bias, relu=True)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The forward pass of the transposed matrix; of a linear layer's few rows, without it."""
        assert isinstance(plan, SparsePlan)
        gradient: Tensor = torch.ops.lth_sparse_cpu.grad_input(
            in_dense_layout(grad_out),
            values.contiguous(),
            plan.pattern.row_offsets,
            plan.pattern.column_indices,
            plan.transposed_row_offsets,
            plan.transposed_columns,
            plan.transposed_order,
            plan.spec.to_ints()[1:],
            input_shape,
        )
        return gradient

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """Sums of products at live positions only; the same bits at any number of threads."""
        pattern = plan.pattern
        gradient: Tensor = torch.ops.lth_sparse_cpu.grad_weight(
            in_dense_layout(x),
            in_dense_layout(grad_out),
            pattern.row_offsets,
            pattern.column_indices,
            plan.spec.to_ints()[1:],
        )
        return gradient


@cache
def _refused(spec: LayerSpec) -> str:
    reason: str = torch.ops.lth_sparse_cpu.refuses(spec.to_ints()[1:])
    return reason


def _forward(x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None, relu: bool) -> Tensor:
    output: Tensor = torch.ops.lth_sparse_cpu.forward(
        in_dense_layout(x),
        values.contiguous(),
        bias,
        plan.pattern.row_offsets,
        plan.pattern.column_indices,
        plan.spec.to_ints()[1:],
        relu,
    )
    return output
