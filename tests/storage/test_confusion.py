"""Confusion matrices as tensors."""

import pytest
import torch

from lth_sparse.storage import confusion
from tests.memory import peak_memory


def test_the_way_there_and_back():
    for matrix in ([], [[3]], [[0, 0], [0, 0]], [[1, 0, 2], [0, 0, 0], [7, 8, 9]]):
        assert confusion.unpack(confusion.pack(matrix), len(matrix)) == matrix


def test_thousands_of_classes_take_what_is_not_zero():
    matrix = [[0] * 3500 for _ in range(3500)]
    matrix[3499][1] = 5
    packed = confusion.pack(matrix)
    assert packed.shape == (2, 3)
    assert confusion.unpack(packed, 3500) == matrix


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(0, 3, dtype=torch.int64),
        torch.zeros(1, 3),
        torch.zeros(1, 2, dtype=torch.int64),
        torch.tensor([[2**16, 2**16, 0]]),
        torch.tensor([[2**40, 2**40, 0]]),
        torch.tensor([[-1, -1, 0]]),
        torch.tensor([[2, 0, 0]]),
        torch.tensor([[2, 2, 0], [0, 2, 1]]),
        torch.tensor([[2, 2, 0], [-1, 0, 1]]),
        torch.tensor([[2, 2, 0], [0, 0, -1]]),
    ],
)
def test_what_is_none_is_refused(packed):
    with peak_memory() as memory, pytest.raises(ValueError, match="a confusion matrix"):
        confusion.unpack(packed, 2)
    assert memory.mebibytes < 50
