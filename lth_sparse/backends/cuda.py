"""The cuda backend: the CUDA C++ kernels of csrc/cuda, which gather from shared memory for the tensor cores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from lth_sparse.backends import extension, nvidia
from lth_sparse.backends.base import Plan, float32_multiplied_in, in_dense_layout
from lth_sparse.backends.registry import register
from lth_sparse.plans import correlation, staging
from lth_sparse.plans.channel_chunks import BLOCK_ROWS, ChunkedBlocks
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.system.workspace import workspace

THREAD_BLOCKS_WANTED = 2
"""Of grad_weight, for each multiprocessor."""
COLUMNS_AHEAD = 32
"""Beyond the last one, that the kernels may read: csrc/cuda/packed_weight.h."""
_NOT_BUILT = (
    "install nvcc and a PyTorch for CUDA, then run 'pip install --no-build-isolation -e .' "
    "with LTH_SPARSE_CUDA=1, which says what is missing"
)
_LEAST_SHARED_BYTES = 99 * 1024
"""What every GPU that the kernels run on has for a thread block: compute capability 8.6, 8.9 and 12.0 no more."""


@cache
def _load() -> str:
    """Load the extension; "" when its operators can be called, else the reason why not."""
    return extension.load("_cuda", _NOT_BUILT)


def _unusable() -> str:
    if not torch.cuda.is_available():
        return _load() or "there is no NVIDIA GPU"
    return nvidia.all_too_old() or _load()


@dataclass(frozen=True, eq=False)
class CudaPlan(nvidia.BlockPlan):
    """With blocks whose columns come by chunks of channels."""

    BLOCKS: ClassVar[type[ColumnBlocks]] = ChunkedBlocks

    blocks: ChunkedBlocks
    transposed: ChunkedBlocks


@register("cuda", unusable=_unusable)
class CudaBackend(nvidia.BlockBackend):
    """Calls the operators of csrc/cuda/ops.cu; shapes as in `Backend`.

    As with Triton, a pruned weight that shares its block of 16 rows with a live weight of the same column is
    multiplied, as a zero: what is not finite in such a column becomes NaN in all rows of the block.
    """

    name = "cuda"
    plan_class = CudaPlan

    def refuses(self, device: torch.device) -> str:
        """The CPU, and GPUs before Ampere."""
        if device.type != "cuda":
            return (
                f"the layer is on {device}, and the CUDA kernels need an NVIDIA GPU: move it there, or choose another "
                "backend"
            )
        return nvidia.too_old(nvidia.index_of(device))

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """float32, float64, float16 and bfloat16; kernels whose reach fits in shared memory."""
        if reason := self.refuses(device):
            return False, reason
        if dtype not in nvidia.DTYPES:
            return False, f"dtype is {dtype}, and the CUDA kernels compute in float16, bfloat16, float32 and float64"
        if not _fits(spec, dtype.itemsize):
            return False, (
                f"kernel_size {spec.kernel_size} with dilation {spec.dilation} reads too far for a tile to fit in "
                "shared memory"
            )
        return True, ""

    def pack(self, pattern: Pattern, spec: LayerSpec) -> CudaPlan:
        """Packs column blocks for both directions, on the host."""
        return CudaPlan(
            spec,
            pattern,
            ChunkedBlocks.of_forward_by_chunks(pattern, spec),
            ChunkedBlocks.of_grad_input_by_chunks(pattern, spec),
        )

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """Sums of products in the columns of each block, of which the live ones are kept; the same bits each time."""
        assert isinstance(plan, CudaPlan)
        blocks, spec = plan.blocks, plan.spec
        gradient = x.new_empty(plan.pattern.nnz)
        if not gradient.numel():
            return gradient
        if not grad_out.numel():
            return gradient.zero_()
        x, grad_out = in_dense_layout(x), in_dense_layout(grad_out)
        geometry = correlation.of_forward(spec, x.shape, grad_out.shape)
        tiling = self._tiling(geometry, x, blocks, grad_out)
        grid = (x.shape[0], *staging.tile_counts(tiling.tile, geometry, x.shape[0]))
        tiles = grid[1] * grid[2] * grid[3]
        work = -(-blocks.blocks // tiling.block_count) * (blocks.chunk_offsets.shape[1] - 1)
        # No more than there is room for at once: a thread block that has to wait would double the time.
        wanted = max(1, THREAD_BLOCKS_WANTED * self._device(x.device).multiprocessors // work)
        tiles_each = -(-tiles // min(tiles, wanted))
        parts = -(-tiles // tiles_each)
        sums = torch.float64 if x.dtype == torch.float64 else torch.float32
        partial, codes = workspace(x.device, (parts * blocks.slots, sums), (blocks.columns.numel(), torch.int32))
        self._operators().grad_weight(
            x, grad_out, gradient, partial, codes, blocks.tensors(), _flat(geometry), tiling, grid, parts, tiles_each,
            self._tf32(spec, x.dtype),
        )  # fmt: skip
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
        """As `BlockBackend.correlate`."""
        if not output.numel():
            return
        input = in_dense_layout(input)
        tiling = self._tiling(geometry, input, blocks, None)
        grid = (input.shape[0], *staging.tile_counts(tiling.tile, geometry, input.shape[0]))
        columns = blocks.columns.numel() + COLUMNS_AHEAD
        weight, codes = workspace(input.device, (columns * BLOCK_ROWS, input.dtype), (columns, torch.int32))
        self._operators().correlate(
            input, values.contiguous(), bias if bias is None else bias.contiguous(), output, weight, codes,
            blocks.tensors(), _flat(geometry), tiling, grid, self._tf32(spec, input.dtype),
        )  # fmt: skip

    def _tiling(
        self, geometry: correlation.Geometry, input: Tensor, blocks: ColumnBlocks, gradient: Tensor | None
    ) -> staging.Tiling:
        found = staging.tiling(
            geometry, input.shape[0], blocks.blocks, input.element_size(), _in_pieces(input),
            None if gradient is None else _in_pieces(gradient), self._device(input.device),
        )  # fmt: skip
        assert found is not None  # `supports` has seen to it.
        return found

    def _operators(self) -> Any:
        return torch.ops.lth_sparse_cuda

    def _device(self, device: torch.device) -> staging.Device:
        return _device(nvidia.index_of(device))

    def _tf32(self, spec: LayerSpec, dtype: torch.dtype) -> bool:
        """Whether tensor cores multiply float32, as PyTorch's own setting for the layer's operators says."""
        return dtype == torch.float32 and float32_multiplied_in(spec) == "tf32"


@cache
def _device(index: int) -> staging.Device:
    found: Any = torch.cuda.get_device_properties(index)
    return staging.Device(found.multi_processor_count, found.shared_memory_per_block_optin)


@cache
def _fits(spec: LayerSpec, element_bytes: int) -> bool:
    """Whether one position of either direction fits in shared memory, with the gradient beside it."""
    device = staging.Device(1, _LEAST_SHARED_BYTES)
    if spec.kind == "linear":
        return True
    # The smallest image that the kernel fits into.
    sizes = [
        max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        for dilation, kernel, padding in zip(spec.dilation, spec.kernel_size, spec.padding, strict=True)
    ]
    x_shape, output_shape = (1, spec.in_channels, *sizes), (1, spec.out_channels, *spec.output_size(*sizes))
    passes = (
        correlation.of_forward(spec, x_shape, output_shape),
        correlation.of_grad_input(spec, output_shape, x_shape),
    )
    return all(staging.tiling(geometry, 1, 1, element_bytes, False, False, device) is not None for geometry in passes)


def _in_pieces(images: Tensor) -> bool:
    return images.stride(1) != 1 and images.data_ptr() % 16 == 0


def _flat(geometry: correlation.Geometry) -> list[int]:
    return [size for pair in geometry for size in pair]
