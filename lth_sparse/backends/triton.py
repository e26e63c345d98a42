"""The triton backend: the kernels of kernels/, which skip the columns that a block of rows has pruned."""

from __future__ import annotations

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lth_sparse.backends import nvidia
from lth_sparse.backends.base import Plan, float32_multiplied_in, in_dense_layout
from lth_sparse.backends.registry import register
from lth_sparse.kernels.configurations import INTERPRETER, MOST_TAPS, architecture, block_shape
from lth_sparse.plans import correlation
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

_INTERPRET = "TRITON_INTERPRET"


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter: on CPU tensors, exact, and thousands of times slower."""
    return os.environ.get(_INTERPRET, "").lower() in ("1", "true", "yes", "on", "y")  # What Triton takes for a yes.


def interpret() -> None:
    """From here on, run the kernels in Triton's interpreter. Has to come before the first of them is imported."""
    os.environ[_INTERPRET] = "1"


def _unusable() -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: run 'pip install triton'"
    if interpreted():
        return ""
    if not torch.cuda.is_available():
        return (
            f"there is no NVIDIA GPU; set {_INTERPRET}=1 before Python starts to run its kernels in Triton's "
            "interpreter, to check them (slow)"
        )
    return nvidia.all_too_old()


@register("triton", unusable=_unusable)
class TritonBackend(nvidia.BlockBackend):
    """Calls the kernels of kernels/; shapes as in `Backend`.

    A pruned weight that shares its block with a live weight of the same column is multiplied, as a zero: what is not
    finite in such a column becomes NaN in all rows of the block, as it would in masked dense PyTorch.
    """

    name = "triton"
    plan_class = nvidia.BlockPlan

    def refuses(self, device: torch.device) -> str:
        """The CPU, but in the interpreter, and GPUs before Ampere."""
        if interpreted():
            return ""
        if device.type != "cuda":
            return (
                f"the layer is on {device}, and the Triton kernels need an NVIDIA GPU: move it there, choose another "
                f"backend, or set {_INTERPRET}=1 before Python starts (slow, to check them)"
            )
        return nvidia.too_old(nvidia.index_of(device))

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """float32, float64, float16 and bfloat16; kernels whose rows and columns add up to 30 at most."""
        if reason := self.refuses(device):
            return False, reason
        if dtype not in nvidia.DTYPES:
            return False, f"dtype is {dtype}, and the Triton kernels compute in float16, bfloat16, float32 and float64"
        if sum(spec.kernel_size) > MOST_TAPS:
            return False, (
                f"kernel_size is {spec.kernel_size}, and the Triton kernels take rows and columns that add up to "
                f"{MOST_TAPS} at most"
            )
        return True, ""

    def pack(self, pattern: Pattern, spec: LayerSpec) -> nvidia.BlockPlan:
        """Packs column blocks for both directions, on the host."""
        row = _row(pattern.mask.device)
        return nvidia.BlockPlan(
            spec,
            pattern,
            ColumnBlocks.of_forward(pattern, spec, *block_shape(row, spec.out_channels // spec.groups)),
            ColumnBlocks.of_grad_input(pattern, spec, *block_shape(row, spec.in_channels // spec.groups)),
        )

    def correlate(
        self,
        input: Tensor,
        values: Tensor,
        bias: Tensor | None,
        output: Tensor,
        blocks: ColumnBlocks,
        geometry: correlation.Geometry,
        spec: LayerSpec,
    ) -> None:
        """As `BlockBackend.correlate`."""
        # Imported at the first call: Triton takes its time, and then it is settled whether its kernels are interpreted.
        from lth_sparse.kernels.correlation import correlate

        with _on(input.device):
            correlate(
                in_dense_layout(input),
                values.contiguous(),
                bias,
                output,
                blocks,
                geometry,
                _row(input.device),
                _precision(spec, input.dtype),
            )

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """Sums of products in the columns of each block, of which the live ones are kept; the same bits each time."""
        from lth_sparse.kernels.grad_weight import grad_weight

        assert isinstance(plan, nvidia.BlockPlan)
        gradient = x.new_empty(plan.pattern.nnz)
        geometry = correlation.of_forward(plan.spec, x.shape, grad_out.shape)
        with _on(x.device):
            grad_weight(
                in_dense_layout(x),
                in_dense_layout(grad_out),
                gradient,
                plan.blocks,
                geometry,
                _row(x.device),
                _precision(plan.spec, x.dtype),
            )
        return gradient


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, so that is made the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _row(device: torch.device) -> str:
    """The row of the table of configurations that applies on `device`."""
    return INTERPRETER if interpreted() else architecture(nvidia.capability(nvidia.index_of(device)))


def _precision(spec: LayerSpec, dtype: torch.dtype) -> str:
    """What the tensors are multiplied in: float32 as PyTorch does it, other dtypes as they are."""
    return float32_multiplied_in(spec) if dtype == torch.float32 else "ieee"
