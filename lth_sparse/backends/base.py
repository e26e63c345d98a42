"""What a backend is: the layer it is given, the plan it makes of a mask, and the five things it does."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lth_sparse.pattern import Pattern


class BackendError(ValueError):
    """A backend that is not known, or that cannot be used here. The message says why in one sentence."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer as a backend sees it: everything but the mask and the numbers. A key for caches, too.

    `padding` is the zero padding (rows, columns) on both sides that the operator does itself. What zero
    padding of two equal sides cannot express (other padding modes, 'same' with an even kernel) has been done
    to the input already. A linear layer has features for channels, and leaves the rest at its default.
    """

    kind: Literal["conv2d", "linear"]
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The dense weight's: [out, in / groups, kernel_height, kernel_width], or [out, in] if linear."""
        if self.kind == "linear":
            return (self.out_channels, self.in_channels)
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The convolution's output height and width; below 1 when the kernel is larger than its input."""
        sizes = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                (height, width), self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        return sizes[0], sizes[1]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a backend has worked out from one mask for one layer. Immutable; no weight values in it.

    A backend that keeps more (transposed indices, schedules, launch plans) subclasses it.
    """

    spec: LayerSpec
    pattern: Pattern


class Backend(Protocol):
    """One way to compute sparse layers. Register an instance with `lth_sparse.backends.registry.register`.

    Shapes, for a convolution: x [N, C_in, H, W], output and grad_out [N, C_out, H_out, W_out]; for a linear
    layer: x [M, in], output and grad_out [M, out]. values and grad_weight are [nnz], row-major; bias is
    [C_out]. All tensors of a call have one dtype and lie on the plan's device; x and grad_out may have any
    strides. Shapes, dtypes and devices were checked by lth_sparse.ops. Autograd is not a backend's concern.
    """

    name: str

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Whether the layer can be computed in this dtype on this device, and if not, why: for the user."""
        ...

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        """Work out, once per mask, what the three operations need. The plan lies where the pattern does."""
        ...

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output, a new tensor."""
        ...

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The gradient of x, of `input_shape`."""
        ...

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The gradient of values, [nnz]: only at live positions."""
        ...
