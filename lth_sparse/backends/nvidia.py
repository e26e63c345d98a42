"""What the backends for NVIDIA GPUs have in common: which GPUs can run their kernels, their plan, the passes on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from lth_sparse.backends.base import Plan, memory_format
from lth_sparse.plans import correlation
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

LEAST_CAPABILITY = (8, 0)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def index_of(device: torch.device) -> int:
    """The number of a GPU, "cuda" being the current one."""
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def capability(index: int) -> tuple[int, int]:
    """Of the GPU of that number, such as (9, 0)."""
    return torch.cuda.get_device_capability(index)


def too_old(index: int) -> str:
    """Why the GPU of that number cannot run the kernels, "" if it can."""
    found = capability(index)
    if found >= LEAST_CAPABILITY:
        return ""
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {found[0]}.{found[1]}, and the kernels "
        f"need {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} (Ampere) or newer"
    )


def all_too_old() -> str:
    """Why none of the GPUs can run the kernels, "" if one can."""
    reasons = [too_old(index) for index in range(torch.cuda.device_count())]
    return reasons[0] if all(reasons) else ""


def empty_images(shape: Sequence[int], like: Tensor) -> Tensor:
    """A new tensor in the memory format of `like`. Raises ValueError when its elements are too many for int32."""
    if math.prod(shape) >= 2**31:
        raise ValueError(
            f"input: got one whose result has shape {tuple(shape)}, {math.prod(shape)} elements, expected fewer than "
            "2^31: give fewer images at a time"
        )
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format(like))


@dataclass(frozen=True, eq=False)
class BlockPlan(Plan):
    """The pattern, and its column blocks for both directions."""

    BLOCKS: ClassVar[type[ColumnBlocks]] = ColumnBlocks

    blocks: ColumnBlocks
    """Of the forward pass and grad_weight."""
    transposed: ColumnBlocks
    """Of grad_input."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern's, then those of the blocks in both directions."""
        return (*self.pattern.tensors(), *self.blocks.tensors(), *self.transposed.tensors())

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], spec: LayerSpec) -> Self:
        """The plan whose `tensors()` these are."""
        first, second = Pattern.TENSORS, Pattern.TENSORS + cls.BLOCKS.TENSORS
        pattern = Pattern(*tensors[:first])
        return cls(spec, pattern, cls.BLOCKS(*tensors[first:second]), cls.BLOCKS(*tensors[second:]))


class BlockBackend:
    """The passes over column blocks: a forward pass and a grad_input are correlations, of `correlate`."""

    plan_class: ClassVar[type[BlockPlan]]

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> BlockPlan:
        """The plan again."""
        return self.plan_class.from_tensors(tensors, spec)

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The correlation of x with the layer's blocks."""
        assert isinstance(plan, BlockPlan)
        spec = plan.spec
        size = spec.output_size(*x.shape[2:]) if spec.kind == "conv2d" else ()
        output = empty_images((x.shape[0], spec.out_channels, *size), x)
        self.correlate(x, values, bias, output, plan.blocks, correlation.of_forward(spec, x.shape, output.shape), spec)
        return output

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The correlation of grad_out with the transposed blocks."""
        assert isinstance(plan, BlockPlan)
        gradient = empty_images(input_shape, grad_out)
        geometry = correlation.of_grad_input(plan.spec, grad_out.shape, input_shape)
        self.correlate(grad_out, values, None, gradient, plan.transposed, geometry, plan.spec)
        return gradient

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
        """Writes all of `output`: the correlation of `input` with `values` [nnz], plus `bias` [C_out]."""
        raise NotImplementedError
