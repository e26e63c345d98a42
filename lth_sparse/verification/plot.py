"""The picture of a verification: how fast each row is, and how near its errors are to their bounds."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lth_sparse.report.plots import INK, styled, title
from lth_sparse.verification.judgement import Row

MARKERS = "osD^vP*X"
LEAST_OF_BOUND = 1e-3
"""An error of zero has no place on a log scale."""
MOST_OF_BOUND = 1e3


@styled
def picture(rows: Sequence[Row], subject: str) -> Figure:
    """A line a layer; left the speedup, right the largest error over its bound, which has to stay left of 1."""
    parts = list(dict.fromkeys(row.part for row in rows))
    sides = list(dict.fromkeys((row.sparsity, row.backend) for row in rows))
    figure = Figure(figsize=(9.6, 1.9 + 0.3 * len(parts)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sides)))
    for number, (side, color) in enumerate(zip(sides, colors, strict=True)):
        chosen = [row for row in rows if (row.sparsity, row.backend) == side]
        places = [parts.index(row.part) for row in chosen]
        speedups = [np.nan if row.speedup is None else row.speedup for row in chosen]
        style = {"color": color, "linestyle": "none", "marker": MARKERS[number % len(MARKERS)]}
        left.plot(speedups, places, label=f"{side[1]} at {side[0]:.1%}", **style)
        right.plot([_of_bound(row) for row in chosen], places, **style)
    for axes in (left, right):
        axes.axvline(1.0, color=INK, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.set_yticks(range(len(parts)), parts)
    left.invert_yaxis()
    left.set_xlabel("speedup over dense PyTorch")
    right.set_xlabel("largest error over its bound")
    title(left, subject)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _of_bound(row: Row) -> float:
    if row.failed:
        return MOST_OF_BOUND
    if not row.judged:
        return float("nan")
    worst = max(judged.of_bound for judged in row.judged.values())
    return min(max(worst, LEAST_OF_BOUND), MOST_OF_BOUND)
