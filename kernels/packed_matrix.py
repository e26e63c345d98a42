"""What a correlation multiplies with: the matrix of a layer, made of its values at each call.

The packed weight is [columns of all steps, block_rows], zeros included. Beside it, each column has a code that says
where it reads: the offset from a position in its lower 32 bits, the taps it needs in its upper ones. With it a gathered
element costs the multiplication's programs no arithmetic on columns.

Bound by memory: it writes slots and reads nnz values, a few megabytes at most where a correlation reads hundreds. Not
yet run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lth_sparse.kernels.configurations import moved_at_once
from lth_sparse.kernels.entries import entry_of
from lth_sparse.kernels.geometry import reach
from lth_sparse.kernels.tf32 import INTERPRETED, rounded
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.correlation import Geometry
from lth_sparse.system.workspace import workspace


@triton.jit(do_not_specialize=["slots", "phase_blocks"])
def pack_kernel(
    values, weight, codes, slots, phase_blocks, live, starts, order, columns, step_blocks,
    channel_step, row_step, column_step,
    geometry: tl.constexpr,
    ORDERED: tl.constexpr, ROUNDING: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, STEP_COLUMNS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """weight[slot] = its value, 0 where it is not alive; codes[column] = where it reads."""
    PHASE_COLUMNS: tl.constexpr = geometry.out_stride[1]
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    entry, alive = entry_of(slot, slots, live, starts, order, BLOCK_ROWS, ORDERED)
    value = tl.load(values + entry, mask=alive, other=0.0)
    value = rounded(value, ROUNDING)
    tl.store(weight + slot, value, mask=slot < slots)

    column = tl.program_id(0) * (SLOTS // BLOCK_ROWS) + tl.arange(0, SLOTS // BLOCK_ROWS)
    exists = column < slots // BLOCK_ROWS
    phase = tl.load(step_blocks + column // STEP_COLUMNS, mask=exists, other=0) // phase_blocks
    offset, needed = reach(
        tl.load(columns + column, mask=exists, other=-1), phase // PHASE_COLUMNS, phase % PHASE_COLUMNS,
        channel_step, row_step, column_step, geometry,
    )  # fmt: skip
    tl.store(codes + column, (needed.to(tl.int64) << 32) | (offset.to(tl.int64) & 0xFFFFFFFF), mask=exists)


def packed(
    values: Tensor, blocks: ColumnBlocks, geometry: Geometry, steps: tuple[int, int, int], round_as: str
) -> tuple[Tensor, Tensor]:
    """(weight [slots], codes int64 [columns]) of `values` [nnz].

    steps: elements from one channel, row and column of the correlation's input to the next. round_as: how
    values are rounded to TF32, `kernels.tf32.rounding`.
    """
    codes, weight = workspace(values.device, (blocks.columns.numel(), torch.int64), (blocks.slots, values.dtype))
    if blocks.slots:
        size = moved_at_once(blocks.slots, blocks.block_rows, INTERPRETED)
        phases = geometry.out_stride[0] * geometry.out_stride[1]
        pack_kernel[(triton.cdiv(blocks.slots, size),)](
            values, weight, codes, blocks.slots, blocks.blocks // phases,
            blocks.live, blocks.starts, blocks.order, blocks.columns, blocks.step_blocks, *steps,
            geometry=geometry,
            ORDERED=len(blocks.order) > 0, ROUNDING=round_as,
            BLOCK_ROWS=blocks.block_rows, STEP_COLUMNS=blocks.step_columns, SLOTS=size,
        )  # fmt: skip
    return weight, codes
