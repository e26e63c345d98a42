"""Column blocks by chunks of channels: what they hold, where, and that columns read together lie in different banks."""

import itertools

import pytest
import torch
from hypothesis import given

from lth_sparse.plans.channel_chunks import BLOCK_ROWS, DEPTH, ChunkedBlocks, chunk_channels
from lth_sparse.plans.column_blocks import ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.plans.test_column_blocks import GRID, decoded, layers


def both(pattern, spec):
    """(blocks by chunks, the same in ascending order, phases) of the forward pass and of grad_input."""
    yield ChunkedBlocks.of_forward_by_chunks(pattern, spec), ColumnBlocks.of_forward(pattern, spec, BLOCK_ROWS, 32), 1
    yield (
        ChunkedBlocks.of_grad_input_by_chunks(pattern, spec),
        ColumnBlocks.of_grad_input(pattern, spec, BLOCK_ROWS, 32),
        spec.stride[0] * spec.stride[1],
    )


@GRID
@given(layer=layers())
def test_every_live_weight_has_the_slot_that_it_has_in_ascending_order(layer):
    spec, mask = layer
    for chunked, ascending, phases in both(Pattern.from_mask(mask), spec):
        assert decoded(chunked, phases) == decoded(ascending, phases)
        assert torch.equal(chunked.slot_rows, ascending.slot_rows)


@GRID
@given(layer=layers())
def test_columns_lie_in_the_chunk_of_their_channel_and_holes_follow_a_column(layer):
    spec, mask = layer
    taps = spec.kernel_size[0] * spec.kernel_size[1]
    channels_each = chunk_channels(taps)
    for chunked, _, _ in both(Pattern.from_mask(mask), spec):
        columns = chunked.columns.flatten().tolist()
        steps = chunked.step_offsets.tolist()
        in_chunks = 0
        for block, offsets in enumerate(chunked.chunk_offsets.tolist()):
            assert offsets[0] == steps[block] * 32
            assert offsets[-1] <= steps[block + 1] * 32
            for chunk, (begin, end) in enumerate(itertools.pairwise(offsets)):
                here = columns[begin:end]
                real = [column for column in here if column >= 0]
                assert len(here) % DEPTH == 0
                assert len(here) - len(real) < DEPTH
                assert all(column // taps // channels_each == chunk for column in real)
                assert not here or here[0] >= 0
                in_chunks += len(real)
        assert in_chunks == sum(column >= 0 for column in columns)


def wavefronts(columns, row_pitch, plane_pitch, step):
    """Turns that shared memory takes for each four columns of 3 x 3 taps, eight neighbouring pixels each. step: whether
    a tap reads later rows and columns than the one before it (1), as in the forward pass, or earlier ones (-1)."""
    quads = torch.cat([columns.view(-1, DEPTH)[:, 0::2], columns.view(-1, DEPTH)[:, 1::2]])
    quads = quads[(quads >= 0).all(1)]
    channel, tap = quads // 9 % chunk_channels(9), quads % 9
    banks = (channel * plane_pitch + step * (tap // 3 * row_pitch + tap % 3))[:, :, None] + torch.arange(8)
    return torch.stack([(banks.flatten(1) % 32 == bank).sum(1) for bank in range(32)], 1).amax(1).float()


@pytest.mark.parametrize(("row_pitch", "plane_pitch"), [(40, 264), (24, 440), (24, 600)])
@pytest.mark.parametrize(("density", "most"), [(1.0, 1.0), (0.1, 1.2), (0.05, 1.35), (0.02, 1.65)])
def test_columns_read_together_rarely_collide(density, most, row_pitch, plane_pitch):
    """Row pitches of 32, 16 and 8 pixels: 8 banks on, or 24."""
    mask = torch.rand(64, 64, 3, 3, generator=torch.Generator().manual_seed(0)) < density
    pattern, spec = Pattern.from_mask(mask), LayerSpec("conv2d", 64, 64, (3, 3), padding=(1, 1))
    for (chunked, ascending, _), step in zip(both(pattern, spec), (1, -1), strict=True):
        turns, plain = (
            wavefronts(blocks.columns.flatten(), row_pitch, plane_pitch, step).mean() for blocks in (chunked, ascending)
        )
        assert turns <= most
        assert turns < 0.8 * plain


def test_a_plan_is_smaller_than_the_dense_weight():
    """At 95 % sparsity, what a layer keeps beside its values for both directions, against a dense float32 weight."""
    mask = torch.rand(256, 256, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.05
    pattern, spec = Pattern.from_mask(mask), LayerSpec("conv2d", 256, 256, (3, 3), padding=(1, 1))
    taken = sum(tensor.numel() for chunked, _, _ in both(pattern, spec) for tensor in chunked.tensors())
    assert taken < 0.35 * mask.numel()
