"""The loop that measures the peak of multiply-adds does them all."""

from __future__ import annotations

import ctypes

import pytest

from bench.timing import ceilings


def test_the_loop_does_what_it_counts() -> None:
    loop = ceilings._compiled_loop()
    if loop is None:
        pytest.skip("nothing compiles the loop here")
    out = ctypes.c_float()
    operations = loop(3, 2.0, 1.0, ctypes.byref(out))
    # Twelve sums that begin with 0 to 11: three times, double and add one.
    assert out.value == sum(8 * start + 7 for start in range(12))
    assert operations in [2 * 3 * 12 * lanes for lanes in (4, 8, 16)]


def test_a_machine_without_a_compiler_is_measured_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert ceilings._compiled_loop() is None
