"""grad_weight: products of a layer's input with the gradient of its output, at live weights only.

Layout. As in correlation.py: the geometry is that of the forward pass, `input` is what it read and `grad_out` lies
where it wrote.

Tiling. A program takes one step of one block, [step_columns, block_rows] sums, and a part of all positions: a few tiles
of pixels, and for each of them the images of its share, one after another. So the place of a pixel, and the taps that
it meets, are worked out once and serve all images. At each image the program gathers what the step's columns read
there, loads the gradients of the block's rows there, and multiplies the two on the tensor cores: there is no dot
product for each live weight, and a gathered element is used block_rows times. The sums go to a float32 buffer [parts,
slots], which a second kernel adds up part by part, in their order, keeping what is alive: no atomics, the same bits
each time.

Bound, by count: the instructions that gather, as for the correlation; the gradients are loaded again for each step of a
block, and positions are what tensor cores sum over, so both operands pass through shared memory. In TF32 on sm_90 a
gathered element costs 19 instructions in NCHW and 28 in channels_last, in half precision 10 and 19 (`make kernels`).
Measured on an H100, with launches that were never tuned, for 64 -> 64 channels of 3 x 3 at 32 x 32, batch 128, at 95 %
sparsity: 282 us in NCHW, 1483 in channels_last (bench/results/gpu-nvidia-h100-80gb-hbm3.json).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lth_sparse.kernels.configurations import launch_of, moved_at_once, parts_of
from lth_sparse.kernels.entries import entry_of
from lth_sparse.kernels.geometry import locate, reach
from lth_sparse.kernels.tensors import layout_of, multiplied_in, steps_of
from lth_sparse.kernels.tf32 import INTERPRETED, rounded, rounding
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.correlation import Geometry
from lth_sparse.system.workspace import workspace


# What differs from mask to mask is not specialised on, or every round of pruning would compile anew.
@triton.jit(do_not_specialize=["steps", "images", "tiles_each", "images_each", "tile_parts"])
def grad_weight_kernel(
    input, grad_out, partial, columns, step_blocks, slot_rows, steps, images, tiles_each, images_each, tile_parts,
    in_image_step, in_channel_step, in_row_step, in_column_step,
    out_image_step, out_channel_step, out_row_step, out_column_step,
    geometry: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr, ROUNDING: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, STEP_COLUMNS: tl.constexpr, PIXELS: tl.constexpr, IMAGES: tl.constexpr,
):  # fmt: skip
    """partial[part][slots of a step] = the sums of products over one part of the positions, IMAGES x PIXELS at once."""
    ALL_PIXELS: tl.constexpr = geometry.positions[0] * geometry.positions[1]
    step = tl.program_id(0) % steps
    part = tl.program_id(0) // steps
    first_tile = part % tile_parts * tiles_each
    first_image = part // tile_parts * images_each
    last_image = tl.minimum(first_image + images_each, images)
    slot = tl.arange(0, BLOCK_ROWS)
    column = step * STEP_COLUMNS + tl.arange(0, STEP_COLUMNS)
    lane = tl.arange(0, IMAGES * PIXELS)
    # Empty slots read channel 0: what is summed up for them belongs to no value.
    channel = tl.maximum(tl.load(slot_rows + tl.load(step_blocks + step) * BLOCK_ROWS + slot), 0)
    to_channel = channel * out_channel_step
    offset, needed = reach(
        tl.load(columns + column), 0, 0, in_channel_step, in_row_step, in_column_step, geometry
    )  # fmt: skip
    ACCUMULATOR: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    total = tl.full([BLOCK_ROWS, STEP_COLUMNS], 0.0, ACCUMULATOR)
    for tile in range(first_tile, first_tile + tiles_each):
        pixel = tile * PIXELS + lane % PIXELS
        row, column_of_pixel, base, outside = locate(pixel, 0, 0, in_row_step, in_column_step, geometry)
        source = base + lane // PIXELS * in_image_step
        target = lane // PIXELS * out_image_step + row * out_row_step + column_of_pixel * out_column_step
        for image in range(first_image, last_image, IMAGES):
            away = outside
            exists = pixel < ALL_PIXELS
            if IMAGES > 1:
                away = tl.where(image + lane // PIXELS < last_image, outside, -1)
                exists = exists & (image + lane // PIXELS < last_image)
            at = input + image * in_image_step + source
            out_at = grad_out + image * out_image_step + target
            # The order of the dimensions decides which of them neighbouring lanes run along.
            if CHANNELS_LAST:
                gathered = tl.load(at[:, None] + offset[None, :],
                                   mask=(away[:, None] & needed[None, :]) == 0, other=0.0)  # fmt: skip
                gradient = tl.load(out_at[:, None] + to_channel[None, :], mask=exists[:, None], other=0.0)
            else:
                gathered = tl.load(at[None, :] + offset[:, None],
                                   mask=(away[None, :] & needed[:, None]) == 0, other=0.0)  # fmt: skip
                gradient = tl.load(out_at[None, :] + to_channel[:, None], mask=exists[None, :], other=0.0)
            gathered = rounded(gathered, ROUNDING)
            gradient = rounded(gradient, ROUNDING)
            left = tl.trans(gradient) if CHANNELS_LAST else gradient
            right = gathered if CHANNELS_LAST else tl.trans(gathered)
            total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    slots = steps * STEP_COLUMNS * BLOCK_ROWS
    tl.store(partial + part.to(tl.int64) * slots + (column[None, :] * BLOCK_ROWS + slot[:, None]), total)


@triton.jit(do_not_specialize=["parts", "slots"])
def collect_kernel(partial, grad_values, parts, slots, live, starts, order,
                   BLOCK_ROWS: tl.constexpr, ORDERED: tl.constexpr, SLOTS: tl.constexpr):  # fmt: skip
    """grad_values[entry] = the sum over the parts, in their order, of partial[part][slot]."""
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    entry, alive = entry_of(slot, slots, live, starts, order, BLOCK_ROWS, ORDERED)
    total = tl.load(partial + slot, mask=alive, other=0.0)
    at = partial + slot
    for _ in range(1, parts):
        at += slots
        total += tl.load(at, mask=alive, other=0.0)
    tl.store(grad_values + entry, total.to(grad_values.dtype.element_ty), mask=alive)


def grad_weight(
    input: Tensor,
    grad_out: Tensor,
    grad_values: Tensor,
    blocks: ColumnBlocks,
    geometry: Geometry,
    architecture: str,
    precision: str,
) -> None:
    """Writes all of `grad_values` [nnz]: the gradient of the layer's values, for `input` and `grad_out`.

    input, grad_out: [N, C, H, W], or [M, C] of a linear layer; each contiguous or channels_last.
    architecture: a row of the table of configurations. precision: "tf32" or "ieee", what float32 is multiplied in; it
    makes no difference to other dtypes.
    """
    images, pixels = grad_out.shape[0], geometry.positions[0] * geometry.positions[1]
    if not grad_values.numel():
        return
    if not images:
        grad_values.zero_()
        return
    launch = launch_of(
        architecture, "grad_weight", layout_of(input), multiplied_in(input.dtype, precision), images * pixels
    )
    parts = parts_of(architecture, launch.block_positions, images, pixels, blocks.steps)
    sums = torch.float64 if grad_values.dtype == torch.float64 else torch.float32
    (partial,) = workspace(grad_values.device, (parts.count * blocks.slots, sums))
    grad_weight_kernel[(blocks.steps * parts.count,)](
        input, grad_out, partial, blocks.columns, blocks.step_blocks, blocks.slot_rows, blocks.steps,
        images, parts.tiles_each, parts.images_each, parts.tile_parts,
        *steps_of(input), *steps_of(grad_out),
        geometry=geometry,
        CHANNELS_LAST=layout_of(input) == "channels_last",
        PRECISION=precision,
        ROUNDING=rounding(input.dtype, precision, architecture),
        BLOCK_ROWS=blocks.block_rows, STEP_COLUMNS=blocks.step_columns,
        PIXELS=parts.pixels_at_once, IMAGES=parts.images_at_once,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
    size = moved_at_once(blocks.slots, blocks.block_rows, INTERPRETED)
    collect_kernel[(triton.cdiv(blocks.slots, size),)](
        partial, grad_values, parts.count, blocks.slots, blocks.live, blocks.starts, blocks.order,
        BLOCK_ROWS=blocks.block_rows, ORDERED=len(blocks.order) > 0, SLOTS=size,
    )  # fmt: skip
