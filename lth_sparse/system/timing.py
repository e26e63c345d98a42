"""Training steps timed side by side, so that a busy machine favours neither."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

WARM_UP_STEPS = 2
FEWEST_STEPS = 5
MOST_STEPS = 30
PATIENCE_SECONDS = 1.0


def side_by_side(
    steps: Sequence[Callable[[], object]], device: torch.device, fewest: int = FEWEST_STEPS, most: int = MOST_STEPS
) -> list[float]:
    """Median milliseconds of each of `steps`, called in turn, first of all in the order given and then reversed.

    At least `fewest` calls of each after 2 to warm up, at most `most`, and about a second in all in between.
    """
    milliseconds: list[list[float]] = [[] for _ in steps]
    began = time.perf_counter()
    for repeat in range(WARM_UP_STEPS + most):
        order = list(enumerate(steps))
        for index, step in order if repeat % 2 == 0 else reversed(order):
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= WARM_UP_STEPS:
                milliseconds[index].append(1000 * (time.perf_counter() - started))
        if len(milliseconds[0]) >= fewest and time.perf_counter() - began > PATIENCE_SECONDS:
            break
    return [statistics.median(times) for times in milliseconds]
