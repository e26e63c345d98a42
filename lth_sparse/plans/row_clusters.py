"""Which rows of a mask share a block: those that are alive in the same columns, so that a block needs few columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOW = 1024
"""Rows among which a block looks for its members. The work for a mask grows with their square."""


def clusters(alive: npt.NDArray[np.bool_], block_rows: int) -> npt.NDArray[np.int64]:
    """An order of the rows of `alive` (bool [rows, columns]) in which each `block_rows` of them make a block.

    Greedy: a block starts with the fullest row that is left, and takes in, one after another, the row with the largest
    part of its columns in the block already; of equal ones the first. Rows without a column come last.

    Jiang, Hong and Agrawal 2020 (A novel data transformation and execution strategy for accelerating sparse matrix
    multiplication on GPUs, PPoPP) reorder rows for the same reason, by hashing; the mask of one layer is small enough
    to compare rows with each other.
    """
    sizes = alive.sum(1)
    occupied = np.flatnonzero(sizes)
    # Fullest first, so that a window holds rows that are about as full.
    occupied = occupied[np.argsort(-sizes[occupied], kind="stable")]
    windows = [_greedy(occupied[at : at + WINDOW], alive, block_rows) for at in range(0, len(occupied), WINDOW)]
    return np.concatenate([*windows, np.flatnonzero(sizes == 0)]).astype(np.int64)


def _greedy(rows: npt.NDArray[np.intp], alive: npt.NDArray[np.bool_], block_rows: int) -> npt.NDArray[np.intp]:
    if len(rows) <= block_rows:
        return rows
    by_column = np.ascontiguousarray(alive[rows].T).view(np.uint8)
    sizes = by_column.sum(0, dtype=np.int64)
    if (sizes == len(by_column)).all():
        return rows  # Nothing is pruned, so any order is as good.
    left = np.arange(len(rows))
    chosen: list[int] = []
    while len(left):
        # Those that are left, in an array of their own: blocks come out ever faster.
        candidates, candidate_sizes = by_column[:, left], sizes[left]
        shared = np.zeros(len(left), np.int64)
        covered = np.zeros(len(by_column), np.bool_)
        members: list[int] = []
        while len(members) < min(block_rows, len(left)):
            # `left` stays fullest first, and argmax takes the first of equals: the fullest row begins.
            pick = int(np.argmax(shared / candidate_sizes)) if members else 0
            members.append(pick)
            new = np.flatnonzero(candidates[:, pick].view(np.bool_) & ~covered)
            covered[new] = True
            shared += candidates[new].sum(0, dtype=np.int64)
            shared[pick] = -1
        chosen += left[members].tolist()
        left = np.delete(left, members)
    return rows[chosen]
