"""Fails when the C++ kernels have become slower: `python -m bench.guard`, in about half a minute.

What is compared are ratios, dense PyTorch's time over ours, taken in turn in this process: with those of
bench/results/cpu-*.json that were measured on the same processor family, with the same instruction set and number of
threads. Where there are none, the ratios are only reported. Absolute times are never compared.

What a call of a tiny layer costs over nn's own is held on every machine to what it must be, by
`bench.contests.tiny_layers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lth_sparse
from bench.cases.activations import ACTIVATIONS
from bench.cases.layers import LAYERS
from bench.contests import activations, layers, tiny_layers
from bench.timing.row import Row
from lth_sparse.backends import autograd_library
from lth_sparse.storage import environment
from lth_sparse.system import allocator

RESULTS = Path(__file__).with_name("results")
_FEW_ROWS = (("linear-4096-batch-1", 0.95), ("linear-4096-batch-16", 0.8))
GUARDED = (
    *(("c64", 0.95), ("c128", 0.9), ("c256", 0.95), ("linear", 0.9), *_FEW_ROWS),
    *(("c128", 0.0), ("c256", 0.5)),
)
"""(layer, sparsity): one for each way through the kernels that training spends its time in, the last two Winograd's."""
MOST_FALLEN = 0.25
SECONDS = 2.0
"""Of the turns of a layer; three times as many for a ratio that fell, which is measured once more."""
SECONDS_OF_CALLS = 0.3
"""Of a tiny layer, called one way; ten times as many for one that took too long, which is measured once more."""
MOST_OVER = 1.25
"""Times what the ratio must be: processors differ in what Python takes beside PyTorch's own work."""
SAME = ("processor_family", "instruction_set", "threads")
"""What two machines must share for their ratios to be compared."""


@dataclass(frozen=True)
class Comparison:
    """A ratio of today beside the committed one, if there is one: minimum over minimum, which a busy machine moves
    the least."""

    case: str
    sparsity: float
    now: float
    committed: float | None

    @property
    def least(self) -> float:
        """What the ratio may not be below."""
        return (self.committed or 0.0) * (1 - MOST_FALLEN)

    @property
    def fell(self) -> bool:
        """Whether it is."""
        return self.now < self.least

    def __str__(self) -> str:
        beside = f"committed {self.committed:.2f}, at least {self.least:.2f}" if self.committed else "none committed"
        return f"{self.case:8} {self.sparsity:.0%}  {self.now:6.2f}  {beside}{'  FELL' if self.fell else ''}"


def compare(rows: Sequence[Row], committed: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Each of `rows` with the committed one of the same case, sparsity and side of ours."""
    known = {(row["case"], row["sparsity"], row["ours"]): row["by_minimum"] for row in committed}
    return [
        Comparison(row.case, row.sparsity, row.by_minimum, known.get((row.case, row.sparsity, row.ours)))
        for row in rows
    ]


def committed_rows(here: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The rows of the files that were measured on a machine like this one; a file that does not say so is not."""
    found = []
    for path in sorted(folder.glob("cpu-*.json")):
        file = json.loads(path.read_text())
        if all(here[name] and file["measured_on"].get(name) == here[name] for name in SAME):
            found += file["rows"]
    return found


def main() -> int:
    """1 when a ratio fell, twice in a row."""
    allocator.keep_freed_memory()
    if reason := lth_sparse.backends()["cpp"]:
        print(f"guard: nothing to measure: cpp backend: {reason}")
        return 0
    here = environment.describe(layers.CPU, lth_sparse.__version__)
    here["instruction_set"] = instruction_set()
    committed = committed_rows(here, RESULTS)
    machine = f"{here['processor_family'] or here['processor']}, {here['instruction_set']}, {here['threads']} threads"
    print(f"guard: dense PyTorch's time over ours, forward and backward (fused: forward), on {machine}")
    if not committed:
        print(f"no committed ratios for such a machine in {RESULTS}: reported only")
    fell = False
    for measured in (*(partial(_measured, *each) for each in GUARDED), _fused):
        (comparison,) = compare([measured(SECONDS)], committed)
        if comparison.fell:
            print(f"{comparison}: once more")
            (comparison,) = compare([measured(3 * SECONDS)], committed)
        print(comparison, flush=True)
        fell |= comparison.fell
    return int(fell | _calls_cost_too_much())


def _calls_cost_too_much() -> bool:
    """Whether a tiny layer took longer than it may, twice in a row. Prints each ratio."""
    if autograd_library.UNUSABLE:
        print(f"tiny layers are called from Python, and not compared: {autograd_library.UNUSABLE}")
        return False
    over = False
    for name, layer in tiny_layers.layers().items():
        for way, musts in tiny_layers.MUST.items():
            ratios = _over_nn(name, layer, way, SECONDS_OF_CALLS)
            if too_slow(ratios, musts):
                ratios = _over_nn(name, layer, way, 10 * SECONDS_OF_CALLS)
            slow = too_slow(ratios, musts)
            told = ", ".join(
                f"{side} {ratio:.2f} (at most {MOST_OVER * musts[side]:.2f})" for side, ratio in ratios.items()
            )
            print(f"tiny {name}, {way}: time over nn's: {told}{'  ABOVE' if slow else ''}", flush=True)
            over |= slow
    return over


def too_slow(ratios: Mapping[str, float], musts: Mapping[str, float]) -> bool:
    """Whether a backend's time over nn's is above what it may be."""
    return any(ratio > MOST_OVER * musts[backend] for backend, ratio in ratios.items())


def _over_nn(name: str, layer: tiny_layers.Tiny, way: str, seconds: float) -> dict[str, float]:
    times = tiny_layers.measure(name, layer, way, seconds)
    return {backend: min(times[backend]) / min(times["nn"]) for backend in tiny_layers.BACKENDS}


def instruction_set() -> str:
    """Of our kernels."""
    found: str = torch.ops.lth_sparse_cpu.instruction_set()
    return found


def _measured(name: str, sparsity: float, seconds: float) -> Row:
    """Raises AssertionError when a side is further from float64 than `bench.contests.layers` allows."""
    (layer,) = [layer for layer in LAYERS if layer.name == name]
    timed = layers.measure(layer, layers.CPU, [sparsity], ["cpp"], seconds=seconds)
    return layers.rows_of(timed)[0]


def _fused(seconds: float) -> Row:
    """The forward pass of the fused operator that is guarded."""
    case = ACTIVATIONS[0]
    return activations.rows(case, activations.measure(case, seconds))[0]


if __name__ == "__main__":
    sys.exit(main())
