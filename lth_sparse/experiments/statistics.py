"""Means over seeds with their intervals, differences paired by seed, and what they allow to be said.

Intervals are Student's t at 95 %, of the mean over seeds. What two arms of a seed share, its weights, its split and its
order of images, drops out of their difference, so a difference's interval is narrower than those of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lth_sparse.storage.instability import THRESHOLD
from lth_sparse.storage.summary import BETTER, MATCHING, STABLE, TOO_FEW, UNSTABLE, WORSE, Estimate

CONFIDENCE = 0.95
MARGIN = 0.01
"""A ticket matches the dense network where it is, at this confidence, no more than this fraction of images behind."""
LEAST = 3
"""Seeds for a verdict: the spread of two says next to nothing."""


def estimate(values: Sequence[float], image: float = 0.0) -> Estimate:
    """The mean of `values`, one a seed, and its interval. `image`: what one test image counts, below which accuracies
    cannot tell two networks apart: seeds that happen to agree are taken to differ by rounding to it."""
    from scipy import stats  # Which takes half a second to import.

    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, len(values))
    spread = max(float(np.std(values, ddof=1)), image / 12**0.5)
    if spread == 0:  # scipy's interval would be nan.
        return Estimate(mean, 0.0, len(values))
    _, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=spread / len(values) ** 0.5)
    return Estimate(mean, float(high) - mean, len(values))


def paired(ones: Sequence[float], others: Sequence[float], image: float = 0.0) -> Estimate:
    """Of `ones` less `others`, which are of the same seeds in the same order."""
    return estimate([one - other for one, other in zip(ones, others, strict=True)], image)


def against_dense(difference: Estimate) -> str:
    """What the ticket's accuracy less the dense network's says."""
    if difference.seeds < LEAST:
        return TOO_FEW
    if difference.low > 0:
        return BETTER
    if difference.low >= -MARGIN:
        return MATCHING
    return WORSE if difference.high < 0 else TOO_FEW


def against_control(difference: Estimate, words: str) -> str:
    """What the ticket's accuracy less that of a control, which is called `words`, says."""
    if difference.seeds < LEAST:
        return TOO_FEW
    if difference.low > 0:
        return f"better than {words}"
    if difference.high < 0:
        return f"worse than {words}"
    return f"no better than {words}" if difference.high <= MARGIN else TOO_FEW


def stability(barrier: Estimate) -> str:
    """What the barrier between two copies of a network says."""
    if barrier.seeds < LEAST:
        return TOO_FEW
    if barrier.high < THRESHOLD:
        return STABLE
    return UNSTABLE if barrier.low >= THRESHOLD else TOO_FEW
