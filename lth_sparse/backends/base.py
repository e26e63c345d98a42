"""What a backend is: the plan it makes of a mask for a layer, and what it does with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Plan:
    """What a backend has worked out from one mask for one layer. Immutable; no weight values in it.

    A backend that keeps more subclasses it, with tensors for fields, and appends them to `tensors()`: a plan
    travels through the operators as the flat tuple of its tensors, the pattern's first.
    """

    spec: LayerSpec
    pattern: Pattern

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern's tensors, then those of the subclass's own fields in their order."""
        return self.pattern.tensors()

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], spec: LayerSpec) -> Self:
        """The plan whose `tensors()` these are."""
        return cls(spec, Pattern(*tensors[: Pattern.TENSORS]), *tensors[Pattern.TENSORS :])


def memory_format(images: Tensor) -> torch.memory_format:
    """channels_last if `images` is contiguous in that format alone, or of one channel and laid out so by its strides,
    which is what PyTorch goes by where both formats are the same memory; whatever else counts as contiguous."""
    if images.dim() != 4:
        return torch.contiguous_format
    if images.is_contiguous():  # Asked first: under vmap nothing else can be.
        count, channels, height, width = images.shape
        of_one_channel = channels == 1 and count * height * width > 0 and height * width > 1
        is_last = of_one_channel and images.stride()[1:] == (1, width, 1)
    else:
        is_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def in_dense_layout(images: Tensor) -> Tensor:
    """Contiguous or channels_last, which is what kernels read: `images` itself when it is one of them."""
    return images.contiguous(memory_format=memory_format(images))


def float32_multiplied_in(spec: LayerSpec) -> str:
    """ "tf32" or "ieee": what PyTorch multiplies float32 in on a GPU, by its own setting for the layer's operators."""
    setting: Any = torch.backends.cuda.matmul if spec.kind == "linear" else torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if setting.fp32_precision == "tf32" else "ieee"


class Backend(Protocol):
    """One way to compute sparse layers. Register an instance with `lth_sparse.backends.registry.register`.

    Shapes, for a convolution: x [N, C_in, H, W], output and grad_out [N, C_out, H_out, W_out]; for a linear
    layer: x [M, in], output and grad_out [M, out]. values and grad_weight are [nnz], row-major; bias is
    [C_out]. All tensors of a call have one dtype and lie on the plan's device; x and grad_out may have any
    strides. Shapes, dtypes and devices were checked by lth_sparse.ops. Autograd is not a backend's concern.

    Memory formats: the output has that of x, grad_input that of grad_out, by `memory_format`. What a backend
    returns otherwise is copied into it.
    """

    name: str

    def refuses(self, device: torch.device) -> str:
        """Why nothing can be computed on `device`, "" if something can: a sentence for the user."""
        ...

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """Whether the layer can be computed in this dtype on this device, and if not, why: for the user.

        False on a device that the backend `refuses`. On any other, the dense backend takes the layer's place.
        """
        ...

    def pack(self, pattern: Pattern, spec: LayerSpec) -> Plan:
        """Work out, once per mask, what the three operations need. The plan lies where the pattern does."""
        ...

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> Plan:
        """The inverse of `pack(...).tensors()`. Runs at every operator call, so it works nothing out."""
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


class RectifyingBackend(Backend, Protocol):
    """A backend whose kernels can store max(0, output) at no cost; `forward_relu` leaves it to PyTorch on any other."""

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The layer's output after ReLU, a new tensor."""
        ...


def forward_relu(backend: Backend, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
    """relu(backend.forward(...)), by the backend itself where it is a `RectifyingBackend`."""
    own = getattr(backend, "forward_relu", None)
    output: Tensor = own(x, values, plan, bias) if own else F.relu_(backend.forward(x, values, plan, bias))
    return output
