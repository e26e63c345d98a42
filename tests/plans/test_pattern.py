"""Pattern: the index structure of a mask, checked against plain loops."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_sparse.plans.pattern import Pattern
from lth_sparse.system.suggest import nearest


def random_mask(shape, density, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def test_indices_of_a_mask_worked_out_by_hand():
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]]).bool()
    pattern = Pattern.from_mask(mask)
    assert pattern.row_offsets.tolist() == [0, 2, 2, 4]
    assert pattern.column_indices.tolist() == [1, 3, 0, 3]
    assert pattern.flat_positions.tolist() == [1, 3, 8, 11]
    assert (pattern.nnz, pattern.shape) == (4, (3, 4))
    assert pattern.density == pytest.approx(4 / 12)
    assert pattern.sparsity == pytest.approx(8 / 12)
    assert (pattern.row_offsets.dtype, pattern.column_indices.dtype) == (torch.int32, torch.int32)


SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(shape=SHAPES, density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 99))
def test_gather_and_scatter_are_inverse_and_in_row_major_order(shape, density, seed):
    mask = random_mask(shape, density, seed)
    pattern = Pattern.from_mask(mask)
    dense = torch.randn(shape)
    values = pattern.gather(dense)
    assert torch.equal(values, dense[mask])
    assert torch.equal(pattern.scatter(values), torch.where(mask, dense, 0.0))
    rows = mask.reshape(shape[0], -1)
    for row in range(shape[0]):
        begin, end = pattern.row_offsets[row], pattern.row_offsets[row + 1]
        assert pattern.column_indices[begin:end].tolist() == rows[row].nonzero().flatten().tolist()


def test_pruned_positions_are_positive_zero_even_beside_infinities():
    mask = torch.tensor([[True, False], [False, True]])
    weight = Pattern.from_mask(mask).scatter(torch.tensor([float("inf"), float("nan")]))
    assert weight[~mask].tolist() == [0.0, 0.0]
    assert not torch.signbit(weight[~mask]).any()


def test_gather_reads_any_memory_layout():
    mask = random_mask((4, 3, 3, 3), 0.5)
    dense = torch.randn(4, 3, 3, 3)
    assert torch.equal(Pattern.from_mask(mask).gather(dense.to(memory_format=torch.channels_last)), dense[mask])


def test_a_mask_in_another_memory_layout_has_the_same_pattern():
    mask = random_mask((4, 3, 3, 3), 0.5)
    other = Pattern.from_mask(mask.to(memory_format=torch.channels_last))
    assert torch.equal(other.flat_positions, Pattern.from_mask(mask).flat_positions)
    assert torch.equal(other.row_offsets, Pattern.from_mask(mask).row_offsets)


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_gather_and_scatter_carry_gradients(density):
    pattern = Pattern.from_mask(random_mask((5, 6), density))
    values = torch.randn(pattern.nnz, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pattern.scatter, values)
    dense = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pattern.gather, dense)


def test_a_pattern_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Pattern.from_mask(torch.ones(2, 2, dtype=torch.bool)).mask = torch.zeros(2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (
            torch.ones(2, 3),
            TypeError,
            r"mask: got dtype torch.float32, expected a tensor of dtype torch.bool",
        ),
        ([[True]], TypeError, "mask: got list, expected a tensor"),
        (
            torch.ones(2, 3, 4, dtype=torch.bool),
            ValueError,
            r"mask: got shape \(2, 3, 4\), expected a non-empty",
        ),
        (torch.ones(0, 3, dtype=torch.bool), ValueError, r"mask: got shape \(0, 3\), expected a non-empty"),
        (torch.ones(1, 1, dtype=torch.bool).expand(2**16, 2**15), ValueError, "fewer than 2\\^31"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, error, message):
    with pytest.raises(error, match=message):
        Pattern.from_mask(mask)


def test_gather_and_scatter_refuse_other_shapes():
    pattern = Pattern.from_mask(torch.eye(3).bool())
    with pytest.raises(ValueError, match=r"dense: got shape \(3, 4\), expected \(3, 3\)"):
        pattern.gather(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"values: got shape \(4,\), expected \(3,\)"):
        pattern.scatter(torch.ones(4))


def test_nearest_suggests_only_what_is_near():
    assert nearest("resnet2", ["resnet20", "conv4"]) == ', did you mean "resnet20"?'
    assert nearest("zzz", ["resnet20", "conv4"]) == ""
