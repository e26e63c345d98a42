"""Where a correlation (plans/correlation.py) reads its input: pixels, taps, and which of them meet."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def shift_of(tap, phase, geometry: tl.constexpr, DIMENSION: tl.constexpr):
    """How far from its position a tap reads, along one dimension."""
    START: tl.constexpr = geometry.start[DIMENSION]
    STEP: tl.constexpr = geometry.step[DIMENSION]
    OUT_STRIDE: tl.constexpr = geometry.out_stride[DIMENSION]
    return (START + phase + tap * STEP) // OUT_STRIDE


@triton.jit
def taps_inside(at, phase, geometry: tl.constexpr, DIMENSION: tl.constexpr):
    """Bit k of the result says whether tap k, seen from `at`, lies inside the input, along one dimension."""
    SIZE: tl.constexpr = geometry.in_size[DIMENSION]
    TAPS: tl.constexpr = geometry.kernel[DIMENSION]
    inside = at * 0
    for tap in tl.static_range(TAPS):
        source = at + shift_of(tap, phase, geometry, DIMENSION)
        inside |= ((source >= 0) & (source < SIZE)).to(tl.int32) << tap
    return inside


@triton.jit
def locate(pixel, phase_row, phase_column, row_step, column_step, geometry: tl.constexpr):
    """For a vector of positions within an image: their row and column, the input element that a shift of 0 reads, and
    the taps that are outside of the input, as bits: the rows of the kernel first, then its columns. A position that
    does not exist has every tap outside."""
    WIDTH: tl.constexpr = geometry.positions[1]
    PIXELS: tl.constexpr = geometry.positions[0] * geometry.positions[1]
    KERNEL_HEIGHT: tl.constexpr = geometry.kernel[0]
    IN_STRIDE_ROW: tl.constexpr = geometry.in_stride[0]
    IN_STRIDE_COLUMN: tl.constexpr = geometry.in_stride[1]
    row = pixel // WIDTH
    column = pixel % WIDTH
    at_row = row * IN_STRIDE_ROW
    at_column = column * IN_STRIDE_COLUMN
    rows_inside = taps_inside(at_row, phase_row, geometry, 0)
    columns_inside = taps_inside(at_column, phase_column, geometry, 1)
    outside = tl.where(pixel < PIXELS, ~(rows_inside | (columns_inside << KERNEL_HEIGHT)), -1)
    return row, column, at_row * row_step + at_column * column_step, outside


@triton.jit
def reach(matrix_column, phase_row, phase_column, channel_step, row_step, column_step, geometry: tl.constexpr):
    """For a vector of matrix columns: how far from a position each reads, and the taps that must not be outside.

    A column of -1, which does not exist, needs a bit that every position lacks.
    """
    KERNEL_HEIGHT: tl.constexpr = geometry.kernel[0]
    KERNEL_WIDTH: tl.constexpr = geometry.kernel[1]
    TAPS: tl.constexpr = geometry.kernel[0] * geometry.kernel[1]
    channel = matrix_column // TAPS
    tap = matrix_column % TAPS
    tap_row = tap // KERNEL_WIDTH
    tap_column = tap % KERNEL_WIDTH
    down = shift_of(tap_row, phase_row, geometry, 0)
    right = shift_of(tap_column, phase_column, geometry, 1)
    offset = channel * channel_step + down * row_step + right * column_step
    one = matrix_column * 0 + 1
    needed = (one << tap_row) | (one << (tap_column + KERNEL_HEIGHT))
    return offset, tl.where(matrix_column >= 0, needed, one << 30)
