"""What an analysis of instability leaves: the rows of `instability.csv` and `instability-paths.csv`."""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 0.02
"""Of error: a network whose barrier is lower is stable (Frankle et al. 2020, arXiv:1912.05671, section 3)."""


@dataclass(frozen=True)
class Barrier:
    """How far the error rises between two trainings of one network that saw its images in different orders.

    `round`: 0 is the dense network, whose weights of `step` both started from; else the ticket of the round, which
    both started from, the weights being those of `step`. Errors are fractions of the test images: `error_first` and
    `error_second` at the two ends, `error_highest` the largest on the line between them. `barrier`: that less the mean
    of the ends. `train_barrier`: the same on a sample of the training images. `stable`: whether `barrier` is below
    `THRESHOLD`.
    """

    round: int
    density: float
    step: int
    barrier: float
    stable: bool
    error_first: float
    error_second: float
    error_highest: float
    train_barrier: float


@dataclass(frozen=True)
class PathPoint:
    """A point of such a line, `position` from 0, the first end, to 1, the second: errors, fractions of the test images
    and of the sample of training images, and the mean cross-entropy on this sample."""

    round: int
    step: int
    position: float
    test_error: float
    train_error: float
    train_loss: float
