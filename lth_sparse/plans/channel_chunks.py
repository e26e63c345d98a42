"""Column blocks for kernels that stage their input in shared memory: columns by chunks of channels, in order of banks.

Such a kernel brings in a few input channels at a time, a chunk, and multiplies the columns that read them by tensor
cores, eight columns at once. So the columns of a block come chunk after chunk, each filled up to a multiple of eight.

The four lanes of a tensor core's fragment that share a pixel read four columns in one instruction. Each reads eight
neighbouring pixels with its neighbours, which are eight neighbouring banks of 32, so that four columns are read at once
if they start eight banks apart. In the layout of plans/staging.py a column starts at bank 8 (channel + row of the
tap) + column of the tap, up to sign: columns of one tap column whose sums of channel and tap row differ modulo 4 do not
collide, and that is how four columns are put together here, as far as they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lth_sparse.plans import correlation
from lth_sparse.plans.column_blocks import WORD, ColumnBlocks, Matrix, build, forward_matrix, grad_input_matrix
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

BLOCK_ROWS = 16
"""Rows that a tensor core multiplies at once."""
DEPTH = 8
"""Columns that it multiplies at once in TF32, and half of those in half precision."""
QUAD = 4
_COLUMNS_WANTED = 144
_MOST_CHANNELS, _FEWEST_CHANNELS = 64, 4


@dataclass(frozen=True, eq=False)
class ChunkedBlocks(ColumnBlocks):
    """Column blocks of 16 rows whose columns come by chunks of input channels."""

    TENSORS: ClassVar[int] = ColumnBlocks.TENSORS + 1

    chunk_offsets: Tensor
    """int32 [blocks, chunks + 1]: chunk c of block b owns the columns `chunk_offsets[b, c]` up to
    `chunk_offsets[b, c + 1]`, counted over all steps; a multiple of 8, holes (-1) only after a real column."""

    @classmethod
    def of_forward_by_chunks(cls, pattern: Pattern, spec: LayerSpec) -> ChunkedBlocks:
        """For the forward pass and grad_weight, as `ColumnBlocks.of_forward`."""
        top, left = spec.padding
        return cls._of(forward_matrix(pattern, spec), _tap_shifts(spec, (-top, -left), spec.dilation, (1, 1)))

    @classmethod
    def of_grad_input_by_chunks(cls, pattern: Pattern, spec: LayerSpec) -> ChunkedBlocks:
        """For grad_input, as `ColumnBlocks.of_grad_input`."""
        down, right = spec.dilation
        return cls._of(grad_input_matrix(pattern, spec), _tap_shifts(spec, spec.padding, (-down, -right), spec.stride))

    @classmethod
    def _of(cls, matrix: Matrix, tap_shifts: npt.NDArray[np.int64]) -> ChunkedBlocks:
        blocks = build(matrix, BLOCK_ROWS, WORD, partial(_by_chunks, tap_shifts))
        offsets = _chunk_offsets(blocks, len(tap_shifts), matrix.column_count).to(matrix.device)
        return cls(*(*blocks.tensors(), offsets))


def chunk_channels(taps: int) -> int:
    """Input channels of a chunk: a power of two, so many that a chunk of an unpruned block has about 144 columns."""
    wanted = max(_FEWEST_CHANNELS, min(_MOST_CHANNELS, _COLUMNS_WANTED // taps))
    return 1 << (wanted.bit_length() - 1)


def chunk_count(channels: int, taps: int) -> int:
    """Chunks of so many input channels, the last one perhaps smaller."""
    return -(-channels // chunk_channels(taps))


def _tap_shifts(
    spec: LayerSpec, start: tuple[int, int], step: tuple[int, int], out_stride: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """int64 [taps, 2]: how far each tap reads from its position, in rows and in columns."""
    rows, columns = (correlation.shifts(spec.kernel_size[d], start[d], step[d], out_stride[d]) for d in range(2))
    return np.array([(row, column) for row in rows for column in columns], np.int64)


def _by_chunks(tap_shifts: npt.NDArray[np.int64], needed: Tensor) -> tuple[Tensor, Tensor]:
    """The arrangement by chunks, and in quads within them."""
    taps = len(tap_shifts)
    block, column = (index.numpy() for index in needed.nonzero(as_tuple=True))
    channel, tap = column // taps, column % taps
    chunks = chunk_count(needed.shape[1] // taps, taps)
    part = block * chunks + channel // chunk_channels(taps)
    bank = (channel + tap_shifts[tap, 0]) % QUAD
    _, column_shift = np.unique(tap_shifts[tap, 1], return_inverse=True)
    shifts = int(column_shift.max(initial=0)) + 1

    # Quads of one column shift with all four banks, as many as there are ...
    kind = (part * shifts + column_shift) * QUAD + bank
    turn = _rank(kind)
    whole = np.bincount(kind, minlength=int(kind.max(initial=-1) // QUAD + 1) * QUAD).reshape(-1, QUAD).min(1)
    rest = turn >= whole[kind // QUAD]
    # ... then what is left, by turns from each bank.
    turn[rest] = _rank((part * QUAD + bank)[rest])
    order = np.lexsort((bank, np.where(rest, 0, column_shift), turn, rest, part))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    sizes = np.bincount(part, minlength=needed.shape[0] * chunks)
    place -= (np.cumsum(sizes) - sizes)[part]
    # A lane reads the columns 2 t and 2 t + 1 of eight: a quad has every other place.
    eighth, within = place // DEPTH, place % DEPTH
    padded = (-(-sizes // DEPTH) * DEPTH).reshape(-1, chunks)
    starts = (padded.cumsum(1) - padded).reshape(-1)[part]
    position = torch.zeros(needed.shape, dtype=torch.int64)
    placed = starts + eighth * DEPTH + within % QUAD * 2 + within // QUAD
    position[torch.from_numpy(block), torch.from_numpy(column)] = torch.from_numpy(placed)
    return position, torch.from_numpy(padded.sum(1))


def _rank(kind: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many elements of its own kind come before each."""
    order = np.argsort(kind, kind="stable")
    counts = np.bincount(kind)
    rank = np.empty(len(kind), np.int64)
    rank[order] = np.arange(len(kind)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _chunk_offsets(blocks: ColumnBlocks, taps: int, column_count: int) -> Tensor:
    """int32 [blocks, chunks + 1], on the host: from how many real columns each chunk has."""
    chunks = chunk_count(column_count // taps, taps)
    columns = blocks.columns.cpu().long()
    part = blocks.step_blocks.cpu().long()[:, None] * chunks + columns // (taps * chunk_channels(taps))
    sizes = torch.bincount(part[columns >= 0], minlength=blocks.blocks * chunks).view(-1, chunks)
    ends = ((sizes + DEPTH - 1) // DEPTH * DEPTH).cumsum(1)
    starts = blocks.step_offsets[:-1, None].cpu() * WORD
    return torch.cat([starts, starts + ends], 1).int()
