"""The plots of instability: the error between two copies, and the barriers of all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from lth_sparse.report.plots import INK, TICKET, WIDTH, round_scale, sparsity_axis, styled, title
from lth_sparse.storage.instability import THRESHOLD, Barrier, PathPoint
from lth_sparse.storage.summary import StabilityRow


@styled
def barriers(rows: Sequence[Barrier | StabilityRow], halves: Sequence[float], subject: str) -> Figure:
    """Above, the dense network's barrier against the step that its copies start from, at equal distances; below, that
    of tickets against weights left. `halves`: half the interval of each of `rows`, 0 where there is none."""
    dense = [(row, half) for row, half in zip(rows, halves, strict=True) if row.round == 0]
    tickets = [(row, half) for row, half in zip(rows, halves, strict=True) if row.round > 0]
    figure, upper, lower = _panels(bool(tickets))
    title(upper, subject)
    _line(upper, np.arange(len(dense)), dense, "dense")
    upper.xaxis.set_major_locator(FixedLocator(list(range(len(dense)))))
    upper.set_xticklabels([f"{row.step:,}" for row, _ in dense])
    upper.set_xlabel("step that the copies start from")
    if lower is not None:
        left = np.array([100 * row.density for row, _ in tickets])
        _line(lower, left, tickets, f"tickets, from step {tickets[0][0].step:,}")
        sparsity_axis(lower, left)
    return figure


def _line(axes: Axes, x: np.ndarray, rows: Sequence[tuple[Barrier | StabilityRow, float]], label: str) -> None:
    heights = [100 * row.barrier for row, _ in rows]
    errors = [100 * half for _, half in rows]
    axes.errorbar(x, heights, yerr=errors if any(errors) else None, fmt="o-", color=TICKET, capsize=3, label=label)
    axes.axhline(100 * THRESHOLD, color=INK, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("error barrier (points)")
    axes.legend(loc="best")


@styled
def paths(points: Sequence[PathPoint], rows: Sequence[Barrier], subject: str) -> Figure:
    """Test error along the line of each of the pairs `rows`: above the dense network's, below the tickets'."""
    dense, tickets = [row for row in rows if row.round == 0], [row for row in rows if row.round > 0]
    figure, upper, lower = _panels(bool(tickets))
    title(upper, subject)
    for row, color, style in zip(dense, _colors(len(dense)), itertools.cycle(("-", "--", "-.", ":")), strict=False):
        _path(upper, points, row, color, style, f"dense, from step {row.step:,}")
    figure.legend(loc="outside lower center", ncols=2)
    upper.set_xlabel("from one copy to the other, dense")
    if lower is not None:
        colors = _colors(len(tickets))
        for row, color in zip(tickets, colors, strict=True):
            _path(lower, points, row, color, "-", "")
        lower.set_xlabel("from one copy to the other, tickets")
        round_scale(figure, lower, [row.round for row in tickets], colors)
    return figure


def _path(axes: Axes, points: Sequence[PathPoint], row: Barrier, color: np.ndarray, style: str, label: str) -> None:
    own = [point for point in points if (point.round, point.step) == (row.round, row.step)]
    errors = [100 * point.test_error for point in own]
    axes.plot([point.position for point in own], errors, style, color=color, label=label or None)
    axes.set_ylabel("test error (%)")


def _colors(count: int) -> np.ndarray:
    return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count)))


def _panels(two: bool) -> tuple[Figure, Axes, Axes | None]:
    figure = Figure(figsize=(WIDTH, 6.0 if two else 3.5), layout="constrained")
    if not two:
        return figure, figure.subplots(), None
    upper, lower = figure.subplots(2, 1, sharey=True)
    return figure, upper, lower
