"""The operators of csrc/ops.cpp, `torch.ops.lth_sparse_cpu`: loaded here, with what tracers must know of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lth_sparse.backends import extension
from lth_sparse.backends.base import memory_format
from lth_sparse.plans.layer_spec import LayerSpec

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What the sparse kernels take, as csrc/cpu/element.h numbers them."""


def refuses(device: torch.device) -> str:
    """Why the kernels compute nothing on `device`, "" where they do."""
    return "" if device.type == "cpu" else f"the layer is on {device}, and the C++ kernels run on the CPU"


def _load() -> str:
    """Load the extension; "" when its operators can be called, else the reason why not."""
    reason = extension.load("_cpu", "install a C++ compiler, then run 'pip install --no-build-isolation -e .'")
    if reason:
        return reason
    try:
        torch.ops.lth_sparse_cpu.instruction_set()
    except (RuntimeError, AttributeError) as error:
        return str(error).splitlines()[0]
    _register_fakes()
    return ""


def _register_fakes() -> None:
    @torch.library.register_fake("lth_sparse_cpu::forward")
    def forward(
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        row_offsets: Tensor,
        columns: Tensor,
        layer: Sequence[int],
        relu: bool = False,
    ) -> Tensor:
        if x.dim() == 2:
            return x.new_empty(x.shape[0], layer[1])
        spec = LayerSpec.from_ints((0, *layer))
        shape = (x.shape[0], spec.out_channels, *spec.output_size(*x.shape[2:]))
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))

    @torch.library.register_fake("lth_sparse_cpu::grad_input")
    def grad_input(
        grad_out: Tensor,
        values: Tensor,
        row_offsets: Tensor,
        columns: Tensor,
        transposed_row_offsets: Tensor,
        transposed_columns: Tensor,
        order: Tensor,
        layer: Sequence[int],
        input_shape: Sequence[int],
    ) -> Tensor:
        return _like_input(grad_out, input_shape)

    @torch.library.register_fake("lth_sparse_cpu::grad_weight")
    def grad_weight(x: Tensor, grad_out: Tensor, row_offsets: Tensor, columns: Tensor, layer: Sequence[int]) -> Tensor:
        return x.new_empty(columns.shape)

    @torch.library.register_fake("lth_sparse_cpu::winograd_forward")
    def winograd_forward(
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        row_offsets: Tensor,
        columns: Tensor,
        layer: Sequence[int],
        tile: int,
        relu: bool = False,
    ) -> Tensor:
        return forward(x, values, bias, row_offsets, columns, layer)

    @torch.library.register_fake("lth_sparse_cpu::winograd_grad_input")
    def winograd_grad_input(
        grad_out: Tensor,
        values: Tensor,
        row_offsets: Tensor,
        columns: Tensor,
        layer: Sequence[int],
        input_shape: Sequence[int],
        tile: int,
    ) -> Tensor:
        return _like_input(grad_out, input_shape)

    @torch.library.register_fake("lth_sparse_cpu::winograd_grad_weight")
    def winograd_grad_weight(
        x: Tensor, grad_out: Tensor, row_offsets: Tensor, columns: Tensor, layer: Sequence[int], tile: int
    ) -> Tensor:
        return x.new_empty(columns.shape)

    @torch.library.register_fake("lth_sparse_cpu::depthwise_forward")
    def depthwise_forward(
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        row_offsets: Tensor,
        columns: Tensor,
        layer: Sequence[int],
        relu: bool = False,
    ) -> Tensor:
        return forward(x, values, bias, row_offsets, columns, layer)

    @torch.library.register_fake("lth_sparse_cpu::depthwise_grad_input")
    def depthwise_grad_input(
        grad_out: Tensor,
        values: Tensor,
        row_offsets: Tensor,
        columns: Tensor,
        layer: Sequence[int],
        input_shape: Sequence[int],
    ) -> Tensor:
        return _like_input(grad_out, input_shape)

    @torch.library.register_fake("lth_sparse_cpu::depthwise_grad_weight")
    def depthwise_grad_weight(
        x: Tensor, grad_out: Tensor, row_offsets: Tensor, columns: Tensor, layer: Sequence[int]
    ) -> Tensor:
        return x.new_empty(columns.shape)

    @torch.library.register_fake("lth_sparse_cpu::scatter_weight")
    def scatter_weight(
        values: Tensor, mask: Tensor, row_offsets: Tensor, columns: Tensor, channels_last: bool
    ) -> Tensor:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return torch.empty(mask.shape, dtype=values.dtype, device=values.device, memory_format=layout)

    @torch.library.register_fake("lth_sparse_cpu::gather_weight")
    def gather_weight(weight: Tensor, mask: Tensor, row_offsets: Tensor, columns: Tensor) -> Tensor:
        return weight.new_empty(columns.shape)

    @torch.library.register_fake("lth_sparse_cpu::pack")
    def pack(row_offsets: Tensor, columns: Tensor, layer: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        spec = LayerSpec.from_ints((0, *layer))
        rows = spec.stride[0] * spec.stride[1] * spec.in_channels
        return columns.new_empty(rows + 1), torch.empty_like(columns), torch.empty_like(columns)


def _like_input(grad_out: Tensor, input_shape: Sequence[int]) -> Tensor:
    return torch.empty(input_shape, dtype=grad_out.dtype, device=grad_out.device, memory_format=memory_format(grad_out))


UNUSABLE = _load()
"""Why they cannot be called here; "" when they can."""
