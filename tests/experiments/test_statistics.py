"""Means, intervals and verdicts, against numbers from tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lth_sparse.experiments.statistics import MARGIN, against_control, against_dense, estimate, paired, stability
from lth_sparse.report.words import DASH, plus_minus
from lth_sparse.storage.summary import Estimate


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262)])
def test_half_an_interval_is_that_of_students_t(seeds: int, t: float) -> None:
    values = np.random.default_rng(seeds).normal(0.7, 0.01, seeds)
    found = estimate(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    assert found.half == pytest.approx(t * values.std(ddof=1) / math.sqrt(seeds), rel=1e-3)


def test_95_of_100_intervals_hold_the_mean() -> None:
    generator = np.random.default_rng(0)
    found = [estimate(generator.normal(0.7, 0.01, 3).tolist()) for _ in range(2000)]
    assert np.mean([each.low <= 0.7 <= each.high for each in found]) == pytest.approx(0.95, abs=0.02)


def test_one_seed_gives_no_interval_and_equal_ones_a_point() -> None:
    assert estimate([0.7]) == Estimate(0.7, None, 1)
    assert (estimate([0.7]).low, estimate([0.7]).high) == (-math.inf, math.inf)
    assert estimate([0.75, 0.75, 0.75]).half == 0


def test_what_the_arms_of_a_seed_share_drops_out_of_their_difference() -> None:
    tickets, dense = [0.71, 0.65, 0.77], [0.70, 0.64, 0.76]
    assert paired(tickets, dense).mean == pytest.approx(0.01)
    assert paired(tickets, dense).half == pytest.approx(0, abs=1e-9)
    assert estimate(tickets).half > 0.1
    with pytest.raises(ValueError, match="shorter"):
        paired([0.1, 0.2], [0.1])


@pytest.mark.parametrize(
    ("mean", "half", "dense", "control"),
    [
        (0.02, 0.01, "better than dense", "better than random mask"),
        (0.000, 0.005, "matching dense", "no better than random mask"),
        (-0.005, 0.004, "matching dense", "worse than random mask"),
        (0.008, 0.009, "matching dense", "too few seeds to say"),
        (-0.03, 0.01, "worse than dense", "worse than random mask"),
        (0.0, 0.05, "too few seeds to say", "too few seeds to say"),
        (-0.008, 0.009, "too few seeds to say", "no better than random mask"),
        (0.05, None, "too few seeds to say", "too few seeds to say"),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(mean: float, half: float | None, dense: str, control: str) -> None:
    assert MARGIN == 0.01
    assert against_dense(Estimate(mean, half, 3)) == dense
    assert against_control(Estimate(mean, half, 3), "random mask") == control


@pytest.mark.parametrize(
    ("barriers", "verdict"),
    [
        ((0.004, 0.005, 0.006), "stable"),
        ((0.1, 0.12, 0.14), "unstable"),
        ((0.01, 0.02, 0.03), "too few seeds to say"),
        ((0.004, 0.005), "too few seeds to say"),
        ((0.0, 0.0, 0.019), "too few seeds to say"),
        ((0.02, 0.02, 0.02), "unstable"),
    ],
)
def test_a_network_is_stable_where_the_interval_of_its_barrier_is_under_two_points(
    barriers: tuple[float, ...], verdict: str
) -> None:
    assert stability(estimate(barriers)) == verdict


def test_two_seeds_give_no_verdict() -> None:
    difference = paired([0.875, 0.75], [0.8125, 0.6875])
    assert (difference.mean, difference.half) == (0.0625, 0)
    assert against_dense(difference) == against_control(difference, "random mask") == "too few seeds to say"


def test_seeds_that_agree_to_the_image_may_still_differ_by_less_than_one() -> None:
    found = estimate([0.9, 0.9, 0.9], image=1 / 360)
    assert found.half == pytest.approx(4.303 * (1 / 360 / 12**0.5) / 3**0.5, rel=1e-3)
    spread = [0.70, 0.72, 0.74]
    assert estimate(spread, image=1 / 10000).half == estimate(spread).half


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.71234, 0.0042, "71.2 ± 0.4"), (0.71234, 0.0142, "71.2 ± 1.4"), (0.71234, 0.027, "71 ± 3"),
        (0.71234, 0.13, "71 ± 13"), (0.71234, 0.00031, "71.23 ± 0.03"), (0.71234, 0.0, "71.23 ± 0.00"),
        (0.71234, None, "71.2"), (-0.004, 0.006, "-0.4 ± 0.6"), (None, None, DASH), (0.5, 0.000001, "50.00 ± 0.00"),
        (0.71234, 0.00999, "71.2 ± 1.0"),
    ],
)  # fmt: skip
def test_no_more_digits_than_the_interval_allows(mean: float | None, half: float | None, text: str) -> None:
    assert plus_minus(mean, half) == text
