"""Speedups beside a busy process: the file that `python -m bench.busy --results` writes."""

from __future__ import annotations

from typing import Any

from bench.page import words
from bench.page.section import Section


def section(name: str, found: dict[str, Any]) -> Section:
    """All of one file, whose name is `name`."""
    made = Section(f"CPU kernels beside a busy process on {words.machine(found['measured_on'])}")
    made.say(*words.source(name, found))
    made.say(
        "Forward pass and both gradients against the better of dense PyTorch's two layouts, once with the machine to",
        "themselves and once while another process spins on core 0. Median over median, for each repeat.",
    )
    cases = dict.fromkeys((row["case"], row["sparsity"]) for row in found["rows"])
    lines = []
    for case, sparsity in cases:
        here = [row for row in found["rows"] if (row["case"], row["sparsity"]) == (case, sparsity)]
        ratios = {
            is_busy: ", ".join(words.ratio(row["by_median"]) for row in here if row["busy"] == is_busy)
            for is_busy in (False, True)
        }
        lines.append([words.layer(case), words.percent(sparsity), ratios[False], ratios[True]])
    made.say(*words.table(["layer", "sparsity", "quiet", "core 0 busy"], lines))
    return made
