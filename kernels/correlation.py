"""Forward pass and grad_input: a correlation of a dense input with a sparse matrix in column blocks.

Layout. Input and output are NCHW or channels_last, both as they are; the matrix is that of plans/column_blocks.py,
made of the values at each call (packed_matrix.py): its weights as [columns, block_rows], its columns as codes.

Tiling. A program computes BLOCK_POSITIONS positions, of any images, times the rows of one block. It goes through the
columns of its block in steps: it gathers the positions that these columns read, from anywhere in the input, and
multiplies them by the step's tile of the packed weight on the tensor cores. Programs of one tile of positions follow
each other, so that its input comes from L2. Which taps are outside of the input is worked out once a position, as bits:
a gathered element costs one test of them, one addition to a pointer, and its load. In NCHW neighbouring lanes gather
neighbouring pixels of one column, in channels_last neighbouring columns of one pixel.

Bound, by count: the instructions that gather. In TF32 on sm_90 an element costs 11 of them in NCHW and 8 in
channels_last, in half precision 8 (`make kernels`), so a pass of 64 -> 64 channels of 3 x 3 at 32 x 32, batch 128, at
95 % sparsity issues for 25 us at least, where the tensor cores need 20 and the memory 14 (`make model`). Software
pipelining (stages above 1) was left out for that reason: cp.async with a predicate each costs seven instructions more.
Measured on an H100, with launches that were never tuned: 177 us, seven times that bound, and 518 us in channels_last
(bench/results/gpu-nvidia-h100-80gb-hbm3.json).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lth_sparse.kernels.configurations import launch_of
from lth_sparse.kernels.geometry import locate
from lth_sparse.kernels.packed_matrix import packed
from lth_sparse.kernels.tensors import layout_of, multiplied_in, steps_of
from lth_sparse.kernels.tf32 import rounded, rounding
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.correlation import Geometry


# What differs from mask to mask is not specialised on, or every round of pruning would compile anew.
@triton.jit(do_not_specialize=["positions", "blocks"])
def correlation_kernel(
    input, weight, codes, bias, output, step_offsets, slot_rows, positions, blocks,
    in_image_step, in_channel_step, in_row_step, in_column_step,
    out_image_step, out_channel_step, out_row_step, out_column_step,
    geometry: tl.constexpr,
    HAS_BIAS: tl.constexpr, CHANNELS_LAST: tl.constexpr, POSITIONS_FIRST: tl.constexpr,
    PRECISION: tl.constexpr, ROUNDING: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, STEP_COLUMNS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr,
):  # fmt: skip
    """output = the correlation of input with the packed weight, plus bias, for one block and one tile of positions."""
    OUT_HEIGHT: tl.constexpr = geometry.out_size[0]
    OUT_WIDTH: tl.constexpr = geometry.out_size[1]
    OUT_STRIDE_ROW: tl.constexpr = geometry.out_stride[0]
    OUT_STRIDE_COLUMN: tl.constexpr = geometry.out_stride[1]
    PIXELS: tl.constexpr = geometry.positions[0] * geometry.positions[1]
    PHASES: tl.constexpr = OUT_STRIDE_ROW * OUT_STRIDE_COLUMN
    block = tl.program_id(0) % blocks
    tile = tl.program_id(0) // blocks
    phase = block // (blocks // PHASES)
    phase_row = phase // OUT_STRIDE_COLUMN
    phase_column = phase % OUT_STRIDE_COLUMN

    position = tile * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    image = position // PIXELS
    row, column, base, outside = locate(
        position % PIXELS, phase_row, phase_column, in_row_step, in_column_step, geometry
    )  # fmt: skip
    outside = tl.where(position < positions, outside, -1)
    source = input + (image * in_image_step + base)
    step_column = tl.arange(0, STEP_COLUMNS)
    slot = tl.arange(0, BLOCK_ROWS)
    # In float32 whatever the inputs are, but for float64.
    ACCUMULATOR: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    if POSITIONS_FIRST:
        total = tl.full([BLOCK_POSITIONS, BLOCK_ROWS], 0.0, ACCUMULATOR)
    else:
        total = tl.full([BLOCK_ROWS, BLOCK_POSITIONS], 0.0, ACCUMULATOR)
    for step in range(tl.load(step_offsets + block), tl.load(step_offsets + block + 1)):
        at = step * STEP_COLUMNS + step_column
        code = tl.load(codes + at)
        offset = code.to(tl.int32)
        needed = (code >> 32).to(tl.int32)
        tile_weight = tl.load(weight + at[:, None] * BLOCK_ROWS + slot[None, :])
        # The order of the dimensions decides which of them neighbouring lanes run along.
        if CHANNELS_LAST:
            element = source[:, None] + offset[None, :]
            meets = (outside[:, None] & needed[None, :]) == 0
        else:
            element = source[None, :] + offset[:, None]
            meets = (outside[None, :] & needed[:, None]) == 0
        gathered = tl.load(element, mask=meets, other=0.0)
        gathered = rounded(gathered, ROUNDING)
        if POSITIONS_FIRST:
            left = gathered if CHANNELS_LAST else tl.trans(gathered)
            total = tl.dot(left, tile_weight, total, input_precision=PRECISION, out_dtype=ACCUMULATOR)
        else:
            right = tl.trans(gathered) if CHANNELS_LAST else gathered
            total = tl.dot(tl.trans(tile_weight), right, total, input_precision=PRECISION, out_dtype=ACCUMULATOR)

    channel = tl.load(slot_rows + block * BLOCK_ROWS + slot)
    if HAS_BIAS:
        shift = tl.load(bias + channel, mask=channel >= 0, other=0.0).to(ACCUMULATOR)
        total += shift[None, :] if POSITIONS_FIRST else shift[:, None]
    out_row = row * OUT_STRIDE_ROW + phase_row
    out_column = column * OUT_STRIDE_COLUMN + phase_column
    exists = (position < positions) & (out_row < OUT_HEIGHT) & (out_column < OUT_WIDTH)
    to_position = image * out_image_step + out_row * out_row_step + out_column * out_column_step
    to_channel = channel * out_channel_step
    result = total.to(output.dtype.element_ty)
    if CHANNELS_LAST:
        if not POSITIONS_FIRST:
            result = tl.trans(result)
        tl.store(output + (to_position[:, None] + to_channel[None, :]), result,
                 mask=exists[:, None] & (channel >= 0)[None, :])  # fmt: skip
    else:
        if POSITIONS_FIRST:
            result = tl.trans(result)
        tl.store(output + (to_position[None, :] + to_channel[:, None]), result,
                 mask=exists[None, :] & (channel >= 0)[:, None])  # fmt: skip


def correlate(
    input: Tensor,
    values: Tensor,
    bias: Tensor | None,
    output: Tensor,
    blocks: ColumnBlocks,
    geometry: Geometry,
    architecture: str,
    precision: str,
) -> None:
    """Writes all of `output`: the correlation of `input` with `values` [nnz], plus `bias` [C_out].

    input, output: [N, C, H, W], or [M, C] of a linear layer; contiguous or channels_last, both in the same layout.
    architecture: a row of the table of configurations. precision: "tf32" or "ieee", what float32 is multiplied in; it
    makes no difference to other dtypes.
    """
    positions = output.shape[0] * geometry.positions[0] * geometry.positions[1]
    if not output.numel():
        return
    launch = launch_of(
        architecture, "correlation", layout_of(input), multiplied_in(input.dtype, precision), positions, blocks.blocks
    )
    round_as = rounding(input.dtype, precision, architecture)
    weight, codes = packed(values, blocks, geometry, steps_of(input)[1:], round_as)
    correlation_kernel[(triton.cdiv(positions, launch.block_positions) * blocks.blocks,)](
        input, weight, codes, bias.contiguous() if bias is not None else weight, output,
        blocks.step_offsets, blocks.slot_rows, positions, blocks.blocks,
        *steps_of(input), *steps_of(output),
        geometry=geometry,
        HAS_BIAS=bias is not None,
        CHANNELS_LAST=layout_of(input) == "channels_last",
        POSITIONS_FIRST=launch.positions_first,
        PRECISION=precision,
        ROUNDING=round_as,
        BLOCK_ROWS=blocks.block_rows, STEP_COLUMNS=blocks.step_columns, BLOCK_POSITIONS=launch.block_positions,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
