"""The lines that a run ends with: of the ticket that it puts forward, and no gain that was not measured."""

from __future__ import annotations

import pytest

from lth_sparse.lottery import outcome
from lth_sparse.storage.record import STEP, Chosen, Record, Round


def row(round: int, validation: float, step_ms: float | None, dense_step_ms: float | None) -> Round:
    speedup = None if step_ms is None or dense_step_ms is None else dense_step_ms / step_ms
    density = 0.5**round
    return Round(
        round, "digits", density, 1 - density, 100, 0.9, 0.8, 0.1, 0.95, 0.95, None, validation, 10, 10, 1, 0.1, 0.0,
        step_ms, dense_step_ms, speedup, 1.0,
    )  # fmt: skip


def record(*tickets: tuple[float, float | None, float | None], by: str = "auto") -> Record:
    rows = [row(0, 0.9, 2.0, 2.0), *(row(number, *each) for number, each in enumerate(tickets, start=1))]
    chosen = [Chosen(each.round, "", each.density, STEP, by, {}, "") for each in rows]
    return Record(rows, chosen=chosen)


@pytest.mark.parametrize(
    ("step_ms", "verdict"), [(1.0, "2.00 times faster"), (1.91, "no faster"), (2.09, "no faster"), (2.2, "slower")]
)
def test_a_gain_is_what_the_two_times_say_and_more_than_the_clock_drifts(step_ms: float, verdict: str) -> None:
    said = outcome.speed(record((0.95, step_ms, 2.0)), "auto")
    assert f"takes {step_ms:.2f} ms, masked dense PyTorch's 2.00 ms" in said
    assert said.endswith(f": {verdict}")


@pytest.mark.parametrize(("by", "backend"), [("dense", "auto"), ("dense", "dense"), ("auto", "dense")])
def test_what_dense_trained_gains_nothing_whatever_the_clock_says(by: str, backend: str) -> None:
    said = outcome.speed(record((0.95, 1.0, 2.0), by=by), backend)
    assert said == "A training step of this ticket is masked dense PyTorch's, and takes as long"


def test_the_ticket_is_the_one_that_is_put_forward_and_the_sparsest_stands_beside_it() -> None:
    found = record((0.95, 1.6, 2.0), (0.8, 1.0, 2.0))
    assert "round 1, 50.0% of the weights left" in outcome.accuracy(found)
    assert outcome.speed(found, "auto").endswith(
        ": 1.25 times faster; of the sparsest, 25.0% of the weights left, 2.00 times faster"
    )
    assert "sparsest" not in outcome.speed(record((0.95, 1.6, 2.0), (0.8, 2.0, 2.0)), "auto")


def test_what_was_not_timed() -> None:
    assert outcome.speed(record((0.95, None, None)), "auto") == "A training step of this ticket was not timed"
