"""Triton's kernels compiled in parallel, before anything is timed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

from bench.cases.gpu import GpuLayer
from bench.compilers.triton_kernels import compiled_layer
from bench.gpu.results import say

MOST_COMPILERS = 16


def compile_ahead(architecture: str, layers: Sequence[GpuLayer], precisions: Sequence[str]) -> None:
    """Fills Triton's cache in parallel, so that measuring waits for no compiler."""
    cases = [
        (architecture, precision, layout, layer.spec, layer.input_shape)
        for precision, layout, layer in product(precisions, ("contiguous", "channels_last"), layers)
        if layout == "contiguous" or layer.spec.kind == "conv2d"
    ]
    with compilers() as processes:
        failures = [failure for failure in processes.map(_compile_one, cases) if failure]
    for failure in failures:
        say(f"did not compile: {failure}")


def compilers() -> ProcessPoolExecutor:
    """Processes that compile; new ones, for CUDA does not survive a fork."""
    count = min(MOST_COMPILERS, len(os.sched_getaffinity(0)))
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def _compile_one(case: tuple[Any, ...]) -> str:
    try:
        compiled_layer(*case)
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"[:400]
    return ""
