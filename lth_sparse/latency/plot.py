"""The picture of a profile: what the operations of a network take."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lth_sparse.latency.profile import Operation
from lth_sparse.report.plots import INK, TICKET, styled, title


@styled
def picture(operations: Sequence[Operation], subject: str) -> Figure:
    """A bar an operation, in the order in which they run; its live GFLOP/s beside those that have weights."""
    figure = Figure(figsize=(9.6, 1.6 + 0.22 * len(operations)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(operations)), [each.milliseconds for each in operations], color=TICKET)
    words = ["" if each.gigaflops is None else f"{each.gigaflops:.0f}" for each in operations]
    axes.bar_label(bars, words, padding=3, color=INK, fontsize=7)
    axes.set_yticks(range(len(operations)), [each.name for each in operations], fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("milliseconds; beside the bars GFLOP/s of live weights")
    title(axes, subject)
    return figure
