"""How the CUDA kernels cut a correlation into thread blocks, and how a tile of its input lies in shared memory.

A thread block computes a tile of positions, of one image or of several whole ones, times a few blocks of 16 rows. Its
warps are `block_count` x `pixel_warps` x `column_warps`, each with one block of rows and 64 positions. The input of the
tile, with its halo, lies in shared memory as [channels of a chunk][images][rows][columns], one chunk of channels at a
time; with a stride, the columns of a row lie by their remainder, so that neighbouring positions read neighbouring
elements.

Pitches are such that the order of columns in plans/channel_chunks.py keeps their reads in different banks: a row
and a channel both move on by 8 banks of 32, or both by 24.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from lth_sparse.plans.channel_chunks import BLOCK_ROWS, chunk_channels
from lth_sparse.plans.correlation import Geometry

WARP_PIXELS = 64
"""Positions of a warp: eight times the eight that a tensor core multiplies at once."""
BANKS, WORD_BYTES = 32, 4
_APART = 8
_COPY_BYTES = (16, 8, 4)
"""What cp.async can copy."""
_MOST_IMAGES, _MOST_ROWS = 2**8, 2**12
"""The kernels hold an image, a row and a column of a tile in one integer."""
_MOST_WARPS = 8
_MOST_BLOCKS, _MOST_BLOCKS_OF_GRADIENT = 4, 8
"""Of rows, in a thread block: with more of them it has fewer positions, and a tile with its gradient stays small."""
_SUMS_BYTES = 32 * 32 * 4
"""Of the sums that a warp has, 32 in each of its lanes, where the warps of a block of rows add them up."""
_PREFERRED_BYTES = 112 * 1024
"""Of shared memory, so that a multiprocessor of an H100 has room for two thread blocks."""


class Device(NamedTuple):
    """What of a GPU decides how kernels are launched."""

    multiprocessors: int
    shared_bytes: int
    """The most that one thread block can have."""


class Tiling(NamedTuple):
    """One launch. csrc/cuda/geometry.h has the same fields in the same order. Sizes are elements, not bytes."""

    block_count: int
    pixel_warps: int
    column_warps: int
    """Warps that share the columns of a block of rows, in a correlation with few positions; 1 in grad_weight."""
    images: int
    rows: int
    columns: int
    """Positions of a tile: images x rows x columns, at most 64 * pixel_warps."""
    piece: int
    """Neighbouring elements of the input that are copied at once."""
    gradient_piece: int
    """The same, of the output's gradient in grad_weight."""
    buffers: int
    """Tiles in shared memory: with two or three, the others are copied while one is multiplied."""
    left: int
    """Where in its row the leftmost element lies that a tile reads; so pieces are aligned."""
    in_rows: int
    in_columns: int
    row_pitch: int
    split_pitch: int
    """From one remainder of a column by the stride to the next."""
    image_pitch: int
    plane_pitch: int
    """From one channel to the next."""
    gradient_pitch: int
    """From one row to the next of the output's gradient; 0 where there is none."""
    first_row_shift: int
    first_column_shift: int
    chunk_channels: int
    pairs: bool
    """Whether the input lies there twice, once shifted by an element, so that any two neighbouring positions are one
    aligned word: in half precision, where positions come in pairs."""
    shared_bytes: int

    @property
    def tile(self) -> tuple[int, int, int]:
        """Its images, rows and columns."""
        return self.images, self.rows, self.columns


@lru_cache(maxsize=4096)
def tiling(
    geometry: Geometry,
    images: int,
    blocks: int,
    element_bytes: int,
    pieces: bool,
    gradient_pieces: bool | None,
    device: Device,
) -> Tiling | None:
    """The launch for `images` and so many `blocks` of rows; None where not even one position fits in shared memory.

    pieces: whether several elements of a row may be copied at once: the input is contiguous and starts at a multiple of
    16 bytes. gradient_pieces: the same of the output's gradient, which lies beside the input in grad_weight; None where
    there is none.
    """
    height, width = geometry.positions
    most_blocks = _MOST_BLOCKS if gradient_pieces is None else _MOST_BLOCKS_OF_GRADIENT
    block_count = max(count for count in _halves(most_blocks) if count <= blocks or count == 1)
    pixel_warps = _MOST_WARPS // block_count
    groups = -(-blocks // block_count)
    while pixel_warps > 1:
        tile = _tile(pixel_warps * WARP_PIXELS, images, height, width)
        if groups * math.prod(tile_counts(tile, geometry, images)) >= device.multiprocessors:
            break
        pixel_warps //= 2
    # Smaller and smaller, until it fits: first what two thread blocks on a multiprocessor want, then what there is.
    preferred = min(_PREFERRED_BYTES, device.shared_bytes)
    tries = [(preferred, 2), (device.shared_bytes, 2), (device.shared_bytes, 1)]
    if gradient_pieces is None:
        tries.insert(0, (preferred, 3))
    for limit, buffers in tries:
        for warps in _halves(pixel_warps):
            found = _laid_out(
                geometry, _tile(warps * WARP_PIXELS, images, height, width), block_count, warps, buffers,
                element_bytes, pieces, gradient_pieces,
            )  # fmt: skip
            if _fits(found, limit):
                return found if gradient_pieces is not None else _with_columns_shared(found, element_bytes)
    # Without pieces, which may need room on both sides, the least tile is as large for any image.
    for positions in _halves(WARP_PIXELS // 2):
        found = _laid_out(
            geometry, _tile(positions, images, height, width), 1, 1, 1,
            element_bytes, False, None if gradient_pieces is None else False,
        )  # fmt: skip
        if _fits(found, device.shared_bytes):
            return found
    return None


def _with_columns_shared(tiling: Tiling, element_bytes: int) -> Tiling:
    """With as many warps as a thread block has, where their sums fit where the input was."""
    staged = tiling.buffers * (2 if tiling.pairs else 1) * tiling.chunk_channels * tiling.plane_pitch * element_bytes
    warps = tiling.block_count * tiling.pixel_warps
    shared = _MOST_WARPS // warps
    while (shared - 1) * warps * _SUMS_BYTES * max(1, element_bytes // 4) > staged:
        shared //= 2
    return tiling._replace(column_warps=shared)


def _fits(tiling: Tiling, shared_bytes: int) -> bool:
    return tiling.shared_bytes <= shared_bytes and max(tiling.in_rows, tiling.in_columns) < _MOST_ROWS


def _halves(count: int) -> list[int]:
    return [count >> shift for shift in range(count.bit_length())]


def tile_counts(tile: tuple[int, int, int], geometry: Geometry, images: int) -> tuple[int, int, int]:
    """Tiles of (images, rows, columns) along images, rows and columns."""
    height, width = geometry.positions
    return -(-images // tile[0]), -(-height // tile[1]), -(-width // tile[2])


def _tile(positions: int, images: int, height: int, width: int) -> tuple[int, int, int]:
    """(images, rows, columns), as square as whole rows allow: halos are smallest so."""
    columns = min(width, positions, max(32, positions // 8))
    rows = min(height, positions // columns)
    if columns < width or rows < height:
        return 1, rows, columns
    return max(1, min(images, positions // (rows * columns), _MOST_IMAGES)), rows, columns


def _laid_out(
    geometry: Geometry,
    tile: tuple[int, int, int],
    block_count: int,
    pixel_warps: int,
    buffers: int,
    element_bytes: int,
    pieces: bool,
    gradient_pieces: bool | None,
) -> Tiling:
    images, rows, columns = tile
    channels = chunk_channels(geometry.kernel[0] * geometry.kernel[1])
    row_shifts, column_shifts = geometry.shifts(0), geometry.shifts(1)
    row_stride, column_stride = geometry.in_stride
    first_row, first_column = min(row_shifts), min(column_shifts)
    in_rows = (rows - 1) * row_stride + max(row_shifts) - first_row + 1
    in_columns = (columns - 1) * column_stride + max(column_shifts) - first_column + 1
    piece = gradient_piece = 1
    if pieces and column_stride == 1:
        piece = _piece(geometry.in_size[1], columns, geometry.positions[1], element_bytes)
    if gradient_pieces:
        gradient_piece = _piece(geometry.out_size[1], columns, geometry.positions[1], element_bytes)
    left = first_column % piece
    split_pitch = -(-(left + in_columns) // (piece * column_stride)) * piece
    row_pitch = split_pitch * column_stride
    words = max(1, WORD_BYTES // element_bytes)  # Elements of a bank.
    granule = max(piece, words)
    row_pitch = -(-row_pitch // granule) * granule
    apart = _APART
    if in_rows > 1 and element_bytes <= WORD_BYTES:
        if columns >= _APART:
            row_pitch = min(_congruent(row_pitch, each * words, BANKS * words) for each in (_APART, BANKS - _APART))
            apart = row_pitch // words % BANKS
        else:
            row_pitch = _congruent(row_pitch, _APART // 2 * words, _APART * words)
    image_pitch = in_rows * row_pitch
    plane_pitch = _congruent(images * image_pitch, apart * words, BANKS * words)
    positions = pixel_warps * WARP_PIXELS
    # Rows of the gradient are 4 banks apart: eight rows of four positions each are read at once.
    gradient_pitch = 0 if gradient_pieces is None else positions + 4 * words
    entries = images * in_rows * (-(-(left + in_columns) // piece) if column_stride == 1 else in_columns)
    tables = 2 * (entries + positions)
    if gradient_pieces is None:
        tables += entries
    else:
        tables += block_count * BLOCK_ROWS + buffers * (entries + positions // gradient_piece)
    pairs = element_bytes == 2 and column_stride == 1 and columns % 2 == 0
    staged = (2 if pairs else 1) * channels * plane_pitch + block_count * BLOCK_ROWS * gradient_pitch
    shared_bytes = -(-buffers * staged * element_bytes // 16) * 16 + tables * WORD_BYTES
    if gradient_pieces is not None:
        shared_bytes = max(shared_bytes, (pixel_warps - 1) * block_count * _SUMS_BYTES * max(1, element_bytes // 4))
    return Tiling(
        block_count, pixel_warps, 1, images, rows, columns, piece, gradient_piece, buffers, left, in_rows, in_columns,
        row_pitch, split_pitch, image_pitch, plane_pitch, gradient_pitch, first_row, first_column, channels,
        pairs, shared_bytes,
    )  # fmt: skip


def _piece(width: int, tile_columns: int, all_columns: int, element_bytes: int) -> int:
    """The most elements that one copy brings in: whole pieces are inside of the image or outside."""
    for size in _COPY_BYTES:
        piece = size // element_bytes
        if piece > 1 and width % piece == 0 and (tile_columns == all_columns or tile_columns % piece == 0):
            return piece
    return 1


def _congruent(least: int, remainder: int, modulus: int) -> int:
    """The smallest number that is at least `least` and has this remainder."""
    return least + (remainder - least) % modulus
