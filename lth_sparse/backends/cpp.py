"""The cpp backend: the fastest float32 way on the CPU that csrc/cpu has, by a rule; `auto` measures instead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lth_sparse.backends import cpp_depthwise, cpu_operators, winograd
from lth_sparse.backends.base import Backend, Plan, forward_relu
from lth_sparse.backends.cpp_depthwise import DepthwiseKernels
from lth_sparse.backends.cpp_sparse import SparseKernels
from lth_sparse.backends.cpp_winograd import WinogradKernels
from lth_sparse.backends.registry import register
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

_SPARSE: Backend = SparseKernels()
_WINOGRAD: Backend = WinogradKernels()
_DEPTHWISE: Backend = DepthwiseKernels()


@register("cpp", unusable=cpu_operators.UNUSABLE)
class CppBackend:
    """Sparse kernels where enough is pruned, Winograd's algorithm where it is faster, and those of depthwise layers.

    Shapes as in `Backend`.
    """

    name = "cpp"

    def refuses(self, device: torch.device) -> str:
        """Every device but the CPU."""
        return cpu_operators.refuses(device)

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """What the sparse kernels do, which compute all that Winograd's do."""
        return _SPARSE.supports(spec, dtype, device)

    def kernels(self, operation: str, plan: Plan, dtype: torch.dtype, input_shape: Sequence[int]) -> Backend:
        """Which kernels compute "forward", "grad_input" or "grad_weight" of a layer for an input of this shape."""
        if dtype == torch.float32 and winograd.worth_it(operation, plan.spec, plan.pattern.density, input_shape):
            return _WINOGRAD
        if dtype == torch.float32 and cpp_depthwise.computes(plan.spec):
            return _DEPTHWISE
        return _SPARSE

    def chosen(
        self, plan: Plan, passes: Sequence[str], dtype: torch.dtype, input_shape: tuple[int, ...], layout: str
    ) -> list[str]:
        """By the rule."""
        return [self.kernels(each, plan, dtype, input_shape).name for each in passes]

    def matrices(self, plan: Plan) -> Plan | None:
        """The plan itself."""
        return plan

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        """The plan of the sparse kernels; the others read its pattern."""
        return _SPARSE.pack(pattern, spec)

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> Plan:
        """The plan again."""
        return _SPARSE.unpack(tensors, spec)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output."""
        return self.kernels("forward", plan, x.dtype, x.shape).forward(x, values, plan, bias)

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output after ReLU."""
        return forward_relu(self.kernels("forward", plan, x.dtype, x.shape), x, values, plan, bias)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The gradient of x."""
        kernels = self.kernels("grad_input", plan, values.dtype, input_shape)
        return kernels.grad_input(grad_out, values, plan, input_shape)

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The gradient of values; the same bits at any number of threads."""
        return self.kernels("grad_weight", plan, x.dtype, x.shape).grad_weight(x, grad_out, plan)
