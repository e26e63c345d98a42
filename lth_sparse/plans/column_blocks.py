"""Column blocks: the index structure that the GPU kernels run over, worked out once a mask.

Rows that are alive in similar columns share a block. A block keeps the columns in which any of its rows is alive, and
on those its part of the matrix is dense: what tensor cores can multiply.

The matrix is that of a correlation (plans/correlation.py): a row is one output channel of the pass, in one phase
of its stride; a column is `input channel * taps + tap`, input channels counted over all groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.plans.row_clusters import clusters

WORD = 32
"""Columns whose liveness one integer of `live` holds. The columns of a step are a multiple of it."""


@dataclass(frozen=True, eq=False)
class ColumnBlocks:
    """A sparse matrix as blocks of rows with columns of their own. Immutable; it holds no weight values.

    The columns of a block, ascending or arranged otherwise, are cut into steps of equal width, the last one filled up
    with columns that do not exist. A packed weight, which the kernels make of the values at each call, is
    `[steps * step_columns, block_rows]`.
    """

    TENSORS: ClassVar[int] = 7
    """How many tensors these are."""

    slot_rows: Tensor
    """int32 [blocks, block_rows]: the channel in each slot of each block, -1 in slots that are empty. The blocks of one
    phase come one after another, and every phase has as many."""
    step_offsets: Tensor
    """int32 [blocks + 1]: block b owns the steps `step_offsets[b]` to `step_offsets[b + 1]`."""
    step_blocks: Tensor
    """int32 [steps]: the block that owns each step."""
    columns: Tensor
    """int32 [steps, step_columns]: in the order of the block's arrangement, -1 where there is none."""
    live: Tensor
    """int32 [steps * step_columns / 32, block_rows]: bit k of a word says whether its slot is alive in its column k."""
    starts: Tensor
    """int32, shaped like `live`: the entry that the word's first bit which is set stands for; the others follow it."""
    order: Tensor
    """int32 [nnz]: the place of each entry among the values; empty when that is its own place."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, in the order of the fields: `ColumnBlocks(*blocks.tensors())` is the way back."""
        return tuple(getattr(self, each.name) for each in fields(self))

    @property
    def blocks(self) -> int:
        """Blocks of all phases."""
        return self.slot_rows.shape[0]

    @property
    def block_rows(self) -> int:
        """Slots of a block."""
        return self.slot_rows.shape[1]

    @property
    def steps(self) -> int:
        """Steps of all blocks."""
        return self.columns.shape[0]

    @property
    def step_columns(self) -> int:
        """Columns of a step."""
        return self.columns.shape[1]

    @property
    def slots(self) -> int:
        """Elements of the packed weight."""
        return self.columns.numel() * self.block_rows

    @classmethod
    def of_forward(cls, pattern: Pattern, spec: LayerSpec, block_rows: int, step_columns: int) -> ColumnBlocks:
        """For the forward pass and grad_weight: a row is an output channel, entries are in the order of the values."""
        return build(forward_matrix(pattern, spec), block_rows, step_columns, ascending)

    @classmethod
    def of_grad_input(cls, pattern: Pattern, spec: LayerSpec, block_rows: int, step_columns: int) -> ColumnBlocks:
        """For grad_input: rows are input channels in one phase; a column is `output channel * taps + tap`."""
        return build(grad_input_matrix(pattern, spec), block_rows, step_columns, ascending)


class Matrix(NamedTuple):
    """The sparse matrix of a correlation: its rows count on from group to group, and from phase to phase."""

    rows: Tensor
    """int64 [nnz], in the order of the values, on the host; as `columns`."""
    columns: Tensor
    phases: int
    groups: int
    group_rows: int
    column_count: int
    device: torch.device
    """Where its blocks are wanted."""


Arrangement = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From `needed`, bool [blocks, columns], to where each column lies within its block, int64 [blocks, columns], anything
for columns that are not needed; and to how far each block reaches, int64 [blocks]."""


def ascending(needed: Tensor) -> tuple[Tensor, Tensor]:
    """The arrangement in which the columns of a block ascend, without gaps."""
    return needed.cumsum(1).sub_(1), needed.sum(1)


def forward_matrix(pattern: Pattern, spec: LayerSpec) -> Matrix:
    """Of the forward pass: rows are output channels."""
    rows, columns = _entries(pattern, spec)
    group_rows, column_count = spec.out_channels // spec.groups, spec.in_channels * spec.taps
    return Matrix(rows, columns, 1, spec.groups, group_rows, column_count, pattern.mask.device)


def grad_input_matrix(pattern: Pattern, spec: LayerSpec) -> Matrix:
    """Of grad_input: rows are input channels, once for each phase of the stride.

    The input pixels (s j + p, s i + q) are phase p * s + q: they see only the taps that reach them.
    """
    taps = spec.taps
    rows, columns = _entries(pattern, spec)
    channel, tap = columns // taps, columns % taps
    phase_rows, phase_columns = (
        (torch.arange(kernel) * dilation - padding) % stride
        for kernel, dilation, padding, stride in zip(
            spec.kernel_size, spec.dilation, spec.padding, spec.stride, strict=True
        )
    )
    phase_of_tap = (phase_rows[:, None] * spec.stride[1] + phase_columns).flatten()
    return Matrix(
        phase_of_tap[tap] * spec.in_channels + channel, rows * taps + tap,
        spec.stride[0] * spec.stride[1], spec.groups, spec.in_channels // spec.groups, spec.out_channels * taps,
        pattern.mask.device,
    )  # fmt: skip


def _entries(pattern: Pattern, spec: LayerSpec) -> tuple[Tensor, Tensor]:
    """int64 [nnz] row and column of each live weight, on the host; channels are counted over all groups."""
    counts = pattern.row_offsets.cpu().diff().long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    group = rows // (spec.out_channels // spec.groups)
    return rows, pattern.column_indices.cpu().long() + group * pattern.shape[1:].numel()


def build(matrix: Matrix, block_rows: int, step_columns: int, arrange: Arrangement) -> ColumnBlocks:
    """The structure of `matrix`, with the columns of each block where `arrange` has them."""
    rows, columns = matrix.rows, matrix.columns
    slot_of_row, slot_rows = _slots(matrix, block_rows)
    blocks = slot_rows.shape[0]
    entry_slot = slot_of_row[rows]
    entry_block = entry_slot // block_rows

    needed = torch.zeros(blocks, matrix.column_count, dtype=torch.bool)
    needed[entry_block, columns] = True
    within, extents = arrange(needed)
    steps = (extents + step_columns - 1) // step_columns
    step_offsets = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    # Where each column of each block lies among the columns of all steps.
    position = within + (step_offsets[:-1] * step_columns)[:, None]
    column_block, column = needed.nonzero(as_tuple=True)
    step_total = int(step_offsets[-1])
    step_table = torch.full((step_total * step_columns,), -1, dtype=torch.int32)
    step_table[position[column_block, column]] = column.int()

    entry_position = position[entry_block, columns]
    key = rows * (step_total * step_columns) + entry_position
    in_order = bool((key.diff() > 0).all())
    by_row = torch.arange(len(key)) if in_order else torch.argsort(key)
    word = (entry_position // WORD * block_rows + entry_slot % block_rows)[by_row]
    words = step_total * step_columns // WORD * block_rows
    live = torch.zeros(words, dtype=torch.int64)
    live.scatter_add_(0, word, torch.ones_like(word) << (entry_position[by_row] % WORD))
    # Sorted by row and place, the entries of a word follow one another.
    starts = torch.zeros(words, dtype=torch.int32)
    starts.scatter_reduce_(0, word, torch.arange(len(word), dtype=torch.int32), "amin", include_self=False)

    shape = (step_total * step_columns // WORD, block_rows)
    made = (
        slot_rows,
        step_offsets.int(),
        torch.repeat_interleave(torch.arange(blocks, dtype=torch.int32), steps),
        step_table.view(step_total, step_columns),
        # The highest bit of a word is the sign of an int32.
        live.where(live < 2**31, live - 2**32).int().view(shape),
        starts.view(shape),
        by_row.new_empty(0, dtype=torch.int32) if in_order else by_row.int(),
    )
    return ColumnBlocks(*(tensor.to(matrix.device) for tensor in made))


def _slots(matrix: Matrix, block_rows: int) -> tuple[Tensor, Tensor]:
    """The slot of each row, int64 [rows of all phases], and the channel in each slot, int32 [blocks, block_rows].

    No block has rows of two groups: what is not finite in one would reach the other.
    """
    rows, columns, phases, groups, group_rows, column_count, _ = matrix
    parts, part_blocks = phases * groups, -(-group_rows // block_rows)
    slot_of_row = torch.empty(parts, group_rows, dtype=torch.int64)
    slot_rows = torch.full((parts, part_blocks * block_rows), -1, dtype=torch.int32)
    part_of_entry = rows // group_rows
    for part in range(parts):
        here = part_of_entry == part
        alive = np.zeros((group_rows, column_count), np.bool_)
        alive[(rows[here] % group_rows).numpy(), columns[here].numpy()] = True
        order = torch.from_numpy(clusters(alive, block_rows))
        slot_rows[part, :group_rows] = order.int() + part % groups * group_rows
        slot_of_row[part, order] = torch.arange(group_rows) + part * part_blocks * block_rows
    return slot_of_row.flatten(), slot_rows.view(parts * part_blocks, block_rows)
