"""Column blocks: what they hold, how rows are clustered, and how long packing takes."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_sparse.plans.column_blocks import WORD, ColumnBlocks
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.plans.row_clusters import clusters

GRID = settings(max_examples=80, deadline=None, derandomize=True, database=None)
LINEAR = LayerSpec("linear", 7, 5)


@st.composite
def layers(draw):
    """A spec and its mask."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    spec = LayerSpec(
        "conv2d",
        groups * draw(st.integers(1, 20)),
        groups * draw(st.integers(1, 20)),
        draw(pairs),
        draw(pairs),
        draw(pairs),
        draw(pairs),
        groups,
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    return spec, torch.rand(spec.weight_shape, generator=generator) < density


def decoded(blocks, phases):
    """{(phase, row, column): entry}, read slot by slot as the kernels' documents say."""
    found = {}
    order = blocks.order.tolist()
    steps_of_block = blocks.step_offsets.tolist()
    for step in range(blocks.steps):
        block = int(blocks.step_blocks[step])
        assert steps_of_block[block] <= step < steps_of_block[block + 1]
        phase = block // (blocks.blocks // phases)
        for position in range(blocks.step_columns):
            column = int(blocks.columns[step, position])
            word, bit = divmod(step * blocks.step_columns + position, WORD)
            for slot in range(blocks.block_rows):
                bits = int(blocks.live[word, slot]) & 0xFFFFFFFF
                if bits >> bit & 1:
                    entry = int(blocks.starts[word, slot]) + bin(bits & ((1 << bit) - 1)).count("1")
                    key = (phase, int(blocks.slot_rows[block, slot]), column)
                    assert key not in found
                    assert key[1] >= 0
                    assert column >= 0
                    found[key] = order[entry] if order else entry
    return found


@GRID
@given(layer=layers(), shape=st.sampled_from([(16, 32), (16, 64), (32, 32)]))
def test_every_live_weight_has_one_slot_and_nothing_else_has(layer, shape):
    spec, mask = layer
    pattern = Pattern.from_mask(mask)
    taps = spec.kernel_size[0] * spec.kernel_size[1]
    group_outputs, group_inputs = spec.out_channels // spec.groups, spec.in_channels // spec.groups
    forward, backward = {}, {}
    for entry, (output, channel, row, column) in enumerate(mask.nonzero().tolist()):
        channel += output // group_outputs * group_inputs
        tap = row * spec.kernel_size[1] + column
        forward[(0, output, channel * taps + tap)] = entry
        phase_row = (row * spec.dilation[0] - spec.padding[0]) % spec.stride[0]
        phase_column = (column * spec.dilation[1] - spec.padding[1]) % spec.stride[1]
        backward[(phase_row * spec.stride[1] + phase_column, channel, output * taps + tap)] = entry
    assert decoded(ColumnBlocks.of_forward(pattern, spec, *shape), 1) == forward
    phases = spec.stride[0] * spec.stride[1]
    assert decoded(ColumnBlocks.of_grad_input(pattern, spec, *shape), phases) == backward


@GRID
@given(layer=layers())
def test_every_row_has_a_slot_in_each_phase_and_no_block_two_groups(layer):
    spec, mask = layer
    pattern = Pattern.from_mask(mask)
    for blocks, phases, rows in (
        (ColumnBlocks.of_forward(pattern, spec, 16, 32), 1, spec.out_channels),
        (ColumnBlocks.of_grad_input(pattern, spec, 16, 32), spec.stride[0] * spec.stride[1], spec.in_channels),
    ):
        for of_phase in blocks.slot_rows.view(phases, -1):
            assert sorted(of_phase[of_phase >= 0].tolist()) == list(range(rows))
        for block in blocks.slot_rows:
            assert len({row // (rows // spec.groups) for row in block.tolist() if row >= 0}) <= 1


def test_dead_rows_and_columns_take_no_steps():
    mask = torch.zeros(64, 40, dtype=torch.bool)
    mask[::4, 7] = True
    blocks = ColumnBlocks.of_forward(Pattern.from_mask(mask), LayerSpec("linear", 40, 64), 16, 32)
    assert blocks.blocks == 4
    assert blocks.steps == 1
    assert blocks.columns[0].tolist() == [7] + [-1] * 31
    # The rows without a weight come last.
    assert blocks.slot_rows[0].tolist() == list(range(0, 64, 4))


def test_the_forward_pass_reads_values_in_their_own_order():
    pattern = Pattern.from_mask(torch.rand(40, 30, 3, 3) < 0.3)
    spec = LayerSpec("conv2d", 30, 40, (3, 3), padding=(1, 1))
    assert ColumnBlocks.of_forward(pattern, spec, 16, 32).order.numel() == 0
    transposed = ColumnBlocks.of_grad_input(pattern, spec, 16, 32)
    assert sorted(transposed.order.tolist()) == list(range(pattern.nnz))


def test_tensors_are_the_fields_in_order():
    blocks = ColumnBlocks.of_forward(Pattern.from_mask(torch.rand(5, 7) < 0.5), LINEAR, 16, 32)
    assert len(blocks.tensors()) == ColumnBlocks.TENSORS
    again = ColumnBlocks(*blocks.tensors())
    assert all(one is other for one, other in zip(blocks.tensors(), again.tensors(), strict=True))


def test_similar_rows_are_put_together():
    """Two kinds of rows, shuffled: each block gets one kind, and with it half of the columns."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(64) % 2
    mask = torch.rand(64, 400, generator=generator) < 0.2
    mask &= (torch.arange(400) % 2)[None, :] == kind[:, None]
    blocks = ColumnBlocks.of_forward(Pattern.from_mask(mask), LayerSpec("linear", 400, 64), 32, 32)
    for block in blocks.slot_rows:
        assert len(set(kind[block.long()].tolist())) == 1
    assert blocks.slots <= 64 * 224


def test_clusters_of_random_rows_need_no_more_columns_than_rows_as_they_come():
    alive = np.random.default_rng(0).random((256, 900)) < 0.05
    order = clusters(alive, 32)
    assert sorted(order.tolist()) == list(range(256))

    def columns(rows):
        return sum(alive[rows[at : at + 32]].any(0).sum() for at in range(0, 256, 32))

    assert columns(order) < columns(np.arange(256))


@pytest.fixture
def one_thread():
    """The time of the processor is then that of the clock, on a machine with nothing else to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.alone
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_a_large_mask_packs_within_a_second(density):
    """512 x 512 x 3 x 3, the largest of VGG, for both directions."""
    mask = torch.rand(512, 512, 3, 3, generator=torch.Generator().manual_seed(0)) < density
    pattern, spec = Pattern.from_mask(mask), LayerSpec("conv2d", 512, 512, (3, 3), padding=(1, 1))
    times = []
    for _ in range(3):
        began = time.process_time()
        ColumnBlocks.of_forward(pattern, spec, 64, 32)
        ColumnBlocks.of_grad_input(pattern, spec, 64, 32)
        times.append(time.process_time() - began)
    assert min(times) < 1, times


def test_a_plan_is_smaller_than_the_dense_weight():
    """At 95 % sparsity, what a layer keeps beside its values for both directions, against a dense float32 weight."""
    mask = torch.rand(256, 256, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.05
    pattern, spec = Pattern.from_mask(mask), LayerSpec("conv2d", 256, 256, (3, 3), padding=(1, 1))
    both = ColumnBlocks.of_forward(pattern, spec, 64, 32), ColumnBlocks.of_grad_input(pattern, spec, 64, 32)
    taken = sum(tensor.numel() * 4 for blocks in both for tensor in blocks.tensors())
    assert taken < 0.25 * mask.numel() * 4
