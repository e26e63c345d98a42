"""The dense backend: masked dense PyTorch. Works for everything; the baseline that the others must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lth_sparse.backends import cpu_operators
from lth_sparse.backends.base import Plan, in_dense_layout, memory_format
from lth_sparse.backends.kept import of_this_call
from lth_sparse.backends.registry import register
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


@dataclass(frozen=True, eq=False)
class DensePlan(Plan):
    """The pattern, and where the values go in the dense weight."""

    flat_positions: Tensor
    """int64 [nnz]: `Pattern.flat_positions`, for PyTorch's scatter_ and index_select, which every step needs. Empty
    when nothing is pruned, and where the C++ operators do both from the pattern.
    """

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern's, then the positions."""
        return (*self.pattern.tensors(), self.flat_positions)


@register("dense")
class DenseBackend:
    """Scatters the values into the dense weight and calls PyTorch's own operators; shapes as in `Backend`."""

    name = "dense"

    def refuses(self, device: torch.device) -> str:
        """No device."""
        return ""

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Every layer, on every device, in every real floating-point dtype."""
        if dtype.is_floating_point:
            return True, ""
        return False, f"dtype is {dtype}, and the dense backend computes in floating point only"

    def pack(self, pattern: Pattern, spec: LayerSpec) -> DensePlan:
        """Positions only, if those: PyTorch needs no schedule of ours."""
        unneeded = not pattern.sparsity or _have_operators(pattern.mask.device)
        none = pattern.column_indices.new_empty(0, dtype=torch.int64)
        return DensePlan(spec, pattern, none if unneeded else pattern.flat_positions)

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> DensePlan:
        """The plan again."""
        return DensePlan.from_tensors(tensors, spec)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """F.linear or F.conv2d with the dense weight."""
        weight = _scatter(values, plan, memory_format(x))
        if kept := of_this_call():
            kept.weight = weight
        spec = plan.spec
        if spec.kind == "linear":
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, spec.stride, spec.padding, spec.dilation, spec.groups)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The dense gradient of the input."""
        layout = memory_format(grad_out)
        kept = of_this_call()
        weight = kept.weight if kept else None
        if weight is None or not weight.is_contiguous(memory_format=layout):
            weight = _scatter(values, plan, layout)
        if plan.spec.kind == "linear":
            return grad_out @ weight
        # Only the input's shape and layout are read. Its memory is never touched, so it costs nothing, while
        # an expanded single element would be copied out in full. It takes grad_out's layout, or a network in
        # channels_last would get its gradients back in the other one, and slower.
        x = torch.empty(input_shape, dtype=values.dtype, device=values.device, memory_format=layout)
        return _convolution_backward(grad_out, x, weight, plan.spec, output_mask=[True, False, False])[0]

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The dense gradient of the weight, gathered at the live positions."""
        if plan.spec.kind == "linear":
            return _gather(grad_out.t() @ x, plan)
        # As above: the weight's values are not read, but in another layout than x's they would be copied.
        weight = torch.empty(plan.spec.weight_shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
        dense = _convolution_backward(grad_out, x, weight, plan.spec, output_mask=[False, True, False])[1]
        return _gather(dense, plan)


def _have_operators(device: torch.device) -> bool:
    return device.type == "cpu" and not cpu_operators.UNUSABLE


def _tensors(pattern: Pattern) -> tuple[Tensor, Tensor, Tensor]:
    """As the operators read them: a mask that was loaded may have any strides."""
    return in_dense_layout(pattern.mask), pattern.row_offsets, pattern.column_indices


def _scatter(values: Tensor, plan: Plan, layout: torch.memory_format) -> Tensor:
    """The dense weight, in the layout that PyTorch wants it in if possible; it may share memory with `values`."""
    assert isinstance(plan, DensePlan)
    pattern = plan.pattern
    # A round before the first pruning has every weight live, and must not pay for moving them.
    if not pattern.sparsity:
        return values.reshape(pattern.shape).contiguous(memory_format=layout)
    if _have_operators(values.device):
        weight: Tensor = torch.ops.lth_sparse_cpu.scatter_weight(
            values.contiguous(), *_tensors(pattern), layout == torch.channels_last
        )
        return weight
    flat = values.new_zeros(pattern.mask.numel())
    return flat.scatter_(0, plan.flat_positions, values).view(pattern.shape)


def _gather(weight: Tensor, plan: Plan) -> Tensor:
    """The live entries of a dense tensor of the weight's shape, [nnz]."""
    assert isinstance(plan, DensePlan)
    pattern = plan.pattern
    if not pattern.sparsity:
        return weight.contiguous().view(-1)
    if _have_operators(weight.device):
        values: Tensor = torch.ops.lth_sparse_cpu.gather_weight(in_dense_layout(weight), *_tensors(pattern))
        return values
    return weight.reshape(-1).index_select(0, plan.flat_positions)


def _convolution_backward(
    grad_out: Tensor, x: Tensor, weight: Tensor, spec: LayerSpec, output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad_out,
        x,
        weight,
        bias_sizes=None,
        stride=spec.stride,
        padding=spec.padding,
        dilation=spec.dilation,
        transposed=False,
        output_padding=(0, 0),
        groups=spec.groups,
        output_mask=output_mask,
    )
    return gradients
