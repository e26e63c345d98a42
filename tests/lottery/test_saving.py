"""States of a training are written as often as their share of its time allows."""

from __future__ import annotations

import pytest

from lth_sparse.lottery import saving


def test_what_writing_takes_decides_how_often_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = 100.0, []
    monkeypatch.setattr(saving.time, "perf_counter", lambda: now)

    def save() -> None:
        nonlocal now
        written.append(now)
        now += 0.5

    states = saving.Saving(save)
    states.may()
    assert written == [100.0]
    for _ in range(24):
        now += 1
        states.may()
    assert len(written) == 1  # Half a second is two hundredths of 25.
    now += 1
    states.may()
    assert written == [100.0, 125.5]
    states.must()
    assert len(written) == 3
