"""What is printed when every benchmark has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.contests import peer_ratios
from bench.timing.ceilings import Ceilings
from bench.timing.operation import Operation
from bench.timing.row import Row
from lth_sparse.system.messages import aligned


def ceilings(measured: dict[str, Ceilings]) -> list[str]:
    """A line for each device."""
    return [
        f"ceilings of {device}: {found.fma_gflops:g} GFLOP/s in single precision, {found.bandwidth_gbs:g} GB/s"
        for device, found in measured.items()
    ]


def operations(found: Sequence[Operation]) -> list[str]:
    """A table for each case at each sparsity: dense PyTorch and every other side beside it, for each operation."""
    lines = []
    for title in dict.fromkeys(each.table for each in found):
        chosen = [each for each in found if each.table == title]
        lines += ["", title, *("  " + line for line in aligned([_OPERATION_TITLES, *map(_operation_cells, chosen)]))]
    return lines


_OPERATION_TITLES = [
    "operation",
    "side",
    "layout",
    "min ms",
    "median (quartiles)",
    "speedup (quartiles)",
    "GFLOP/s",
    "of ceiling",
    "error",
]


def _operation_cells(line: Operation) -> list[str]:
    least, low, median, high = line.milliseconds
    lower, upper = line.speedup_quartiles
    return [
        line.operation,
        line.side,
        line.layout,
        f"{least:.3g}",
        f"{median:.3g} ({low:.3g} to {high:.3g})",
        f"{line.speedup:.2f} ({lower:.2f} to {upper:.2f})",
        f"{line.gflops:.3g}",
        f"{line.of_ceiling:.0%}",
        f"{line.error:.0e}",
    ]


def peers(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each side's time over ours, quiet and beside a busy process; then the lowest of those with goals."""
    ratios = peer_ratios.of(found)
    cells = [["layer", "sparsity", "side", "time over ours, quiet", "core 0 busy"]]
    quiet = [each for each in ratios if not each.busy]
    for each, busy in zip(quiet, (each for each in ratios if each.busy), strict=True):
        cells.append([each.case, f"{each.sparsity:.0%}", each.name, f"{each.value:.2f}", f"{busy.value:.2f}"])
    lines = aligned(cells)
    for each in peer_ratios.lowest(ratios):
        ratio, goal = each.ratio, each.goal
        lines.append(
            f"lowest of {', '.join(map(str, each.cases))}{', core 0 busy' if ratio.busy else ''}: {ratio.value:.2f}, "
            f"{ratio.name} on {ratio.case} at {ratio.sparsity:.0%}; "
            f"must {goal.must:g}, aim {goal.aim:g}: {each.verdict}"
        )
    return lines


def engines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each case its sides: calls, milliseconds, images a second, and their median over ours."""
    cells = [["case", "side", "calls", "p50 ms", "p95 ms", "images/s", "over ours", "must", "aim", "", "off"]]
    for row in found:
        times = [f"{row[f'p{percent}_milliseconds']:.2f}" for percent in (50, 95)]
        goal = [f"{row[name]:g}" if row[name] else "" for name in ("must", "aim")]
        speed = [f"{row['images_a_second']:.1f}", f"{row['over_ours']:.2f}", *goal, row["verdict"]]
        cells.append([row["case"], row["name"], str(row["calls"]), *times, *speed, f"{row['furthest_off']:.0e}"])
    return aligned(cells)


def rows(found: Sequence[Row]) -> list[str]:
    """A line a row, under a line of titles."""
    cells = [["case", "sparsity", "ours", "against", "min/min", "med/med", "quartiles", "must", "aim", "", "note"]]
    for row in found:
        low, high = row.quartiles or (None, None)
        cells.append(
            [
                row.case,
                f"{row.sparsity:.0%}",
                row.ours,
                row.against,
                f"{row.by_minimum:.2f}",
                f"{row.by_median:.2f}",
                f"{low:.2f} to {high:.2f}" if low else "",
                f"{row.must:g}" if row.must else "",
                f"{row.aim:g}" if row.aim else "",
                row.verdict,
                row.note,
            ]
        )
    return aligned(cells)
