"""Confusion matrices as tensors: with thousands of classes they are far too large for JSON, and mostly zero."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(matrix: list[list[int]]) -> Tensor:
    """int64 [1 + counts, 3]: (classes, classes, 0), then (true class, predicted class, count) of each that is not 0."""
    counts = torch.tensor(matrix, dtype=torch.int64).reshape(len(matrix), len(matrix))
    places = counts.nonzero()
    rows = torch.cat([places, counts[places[:, 0], places[:, 1], None]], 1)
    return torch.cat([torch.tensor([[len(matrix), len(matrix), 0]]), rows])


def unpack(packed: Tensor, classes: int) -> list[list[int]]:
    """The matrix of so many classes that `pack` was given. Raises ValueError for what it cannot have made of one.

    A few numbers may claim any classes, so who reads a file has to say how many there are.
    """
    if packed.dtype != torch.int64 or packed.dim() != 2 or packed.shape[1] != 3 or not len(packed):
        raise ValueError(f"a confusion matrix is {packed.dtype} of shape {tuple(packed.shape)}")
    if packed[0].tolist() != [classes, classes, 0]:
        raise ValueError(f"a confusion matrix is of {int(packed[0, 0])} classes, expected {classes}")
    places, counts = packed[1:, :2], packed[1:, 2]
    if (places < 0).any() or (places >= classes).any() or (counts < 0).any():
        raise ValueError("a confusion matrix has places outside, or negative counts")
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    matrix[places[:, 0], places[:, 1]] = counts
    found: list[list[int]] = matrix.tolist()
    return found
