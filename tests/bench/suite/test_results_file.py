"""What a file of figures is called: two kinds of machines never give the same name."""

from __future__ import annotations

from typing import Any

import pytest

from bench.suite import results_file

HERE = {"processor": "AMD EPYC", "processor_family": "AuthenticAMD family 26 model 2", "threads": 2, "device": "cpu"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "cpu-amd-epyc-family-26-model-2-threads-2.json"),
        ({"processor_family": "AuthenticAMD family 25 model 17"}, "cpu-amd-epyc-family-25-model-17-threads-2.json"),
        ({"threads": 16}, "cpu-amd-epyc-family-26-model-2-threads-16.json"),
        ({"processor_family": ""}, "cpu-amd-epyc-threads-2.json"),
        ({"device": "NVIDIA H200"}, "cpu-nvidia-h200.json"),
    ],
)
def test_a_file_is_named_after_its_machine(changed: dict[str, Any], expected: str) -> None:
    assert results_file.name("cpu", HERE | changed) == expected


def test_words_follow_the_machine() -> None:
    assert results_file.name("lottery", HERE, "conv4", "extrapolated").endswith("-threads-2-conv4-extrapolated.json")
