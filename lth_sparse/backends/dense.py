"""The dense backend: masked dense PyTorch. Works for everything; the baseline that the others must beat."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lth_sparse.backends.base import LayerSpec, Plan
from lth_sparse.backends.registry import register
from lth_sparse.pattern import Pattern


@register("dense")
class DenseBackend:
    """Scatters the values into the dense weight and calls PyTorch's own operators; shapes as in `Backend`."""

    name = "dense"

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Every layer, on every device, in every real floating-point dtype."""
        if dtype.is_floating_point:
            return True, ""
        return False, f"dtype is {dtype}, and the dense backend computes in floating point only"

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        """Nothing beyond the pattern: PyTorch needs no schedule of ours."""
        return Plan(spec, pattern)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """F.linear or F.conv2d with the dense weight."""
        weight = plan.pattern.scatter(values)
        spec = plan.spec
        if spec.kind == "linear":
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, spec.stride, spec.padding, spec.dilation, spec.groups)

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The dense gradient of the input."""
        weight = plan.pattern.scatter(values)
        if plan.spec.kind == "linear":
            return grad_out @ weight
        # Only the input's shape and layout are read. Its memory is never touched, so it costs nothing, while
        # an expanded single element would be copied out in full. It takes grad_out's layout, or a network in
        # channels_last would get its gradients back in the other one, and slower.
        x = torch.empty(input_shape, dtype=values.dtype, device=values.device, memory_format=_memory_format(grad_out))
        return _convolution_backward(grad_out, x, weight, plan.spec, output_mask=[True, False, False])[0]

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The dense gradient of the weight, gathered at the live positions."""
        if plan.spec.kind == "linear":
            return plan.pattern.gather(grad_out.t() @ x)
        # As above: the weight's values are not read.
        weight = x.new_empty(plan.spec.weight_shape)
        dense = _convolution_backward(grad_out, x, weight, plan.spec, output_mask=[False, True, False])[1]
        return plan.pattern.gather(dense)


def _memory_format(images: Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


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
