"""Charts as data, and their drawing: SVG, small enough to commit, with the digest of what was drawn in it."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lth_sparse.report.plots import INK, WIDTH, styled, title

COLORS = ("#0072b2", "#c04e00", "#00795a", "#8c4799", "#b8860b", "#555555", "#d0437c", "#3f7f93")
BREAK_EVEN = 1.0
_HEIGHT = 3.6
_ROUND = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
_TEXT: Any = {"svg.fonttype": "none", "svg.hashsalt": "lth_sparse"}


@dataclass(frozen=True)
class Line:
    """Points (x, y), joined unless `style` has no line in it. `color`: which of COLORS; -1 is that of the axes."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: str = "o-"
    color: int = 0

    @classmethod
    def through(cls, label: str, points: Sequence[tuple[float, float]], style: str = "o-", color: int = 0) -> Line:
        """From points (x, y)."""
        return cls(label, tuple(x for x, _ in points), tuple(y for _, y in points), style, color)


@dataclass(frozen=True)
class Chart:
    """`x_axis`: "sparsity" (from dense to sparse on a log scale of what is left), "log", or "linear".

    `break_even`: x against a ratio, of which 1 is marked, and each place where a line crosses it. `narrow`: as wide as
    a phone, for the front page; it says nothing about the points, so the digest is without it.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_axis: str = "linear"
    y_log: bool = False
    break_even: bool = False
    narrow: bool = field(default=False, repr=False)

    @property
    def file(self) -> str:
        """Its path, from the page."""
        return f"plots/{self.name}.svg"

    @property
    def digest(self) -> str:
        """SHA-256 of what is drawn; it stands in the file."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def markdown(self) -> str:
        """The picture, as the page shows it."""
        return f"![{self.title}: {self.y_label} against {self.x_label}]({self.file})"


@dataclass(frozen=True)
class Shares(Chart):
    """What each line is of a whole, in percent, one upon the other."""


def crossing(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The first x from which y is at least 1, between two points by a straight line; None where there is none."""
    for index, value in enumerate(y):
        if value >= BREAK_EVEN:
            if index == 0:
                return x[0]
            before = y[index - 1]
            share = (BREAK_EVEN - before) / (value - before)
            return x[index - 1] + share * (x[index] - x[index - 1])
    return None


@styled
def svg(chart: Chart) -> bytes:
    """The chart; equal charts give equal bytes with the same matplotlib."""
    with matplotlib.rc_context(_TEXT):
        figure = Figure(figsize=(WIDTH if chart.narrow else 1.5 * WIDTH, _HEIGHT), layout="constrained")
        axes = figure.subplots()
        _draw(axes, chart)
        if chart.break_even:
            _mark_break_even(axes, chart)
        title(axes, chart.title)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        _scale(axes, chart)
        if chart.narrow:
            axes.legend(loc="best")
        else:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        content = io.BytesIO()
        metadata = {"Date": None, "Creator": None, "Identifier": chart.digest}
        figure.savefig(content, format="svg", metadata=metadata)
    # Lines that end in a blank are a nuisance to git.
    return b"\n".join(line.rstrip() for line in content.getvalue().splitlines()) + b"\n"


def _draw(axes: Axes, chart: Chart) -> None:
    colors = [INK if line.color < 0 else COLORS[line.color % len(COLORS)] for line in chart.lines]
    if isinstance(chart, Shares):
        labels = [line.label for line in chart.lines]
        axes.stackplot(_place(chart, chart.lines[0].x), *(line.y for line in chart.lines), labels=labels, colors=colors)
        axes.margins(x=0, y=0)
        return
    for line, color in zip(chart.lines, colors, strict=True):
        axes.plot(_place(chart, line.x), line.y, line.style, color=color, label=line.label)


def _place(chart: Chart, x: Sequence[float]) -> list[float]:
    """Where the points are drawn: a sparsity by the logarithm of the weights left."""
    if chart.x_axis == "weights left":
        return [-math.log(value) for value in x]
    return [-math.log(1 - value) for value in x] if chart.x_axis == "sparsity" else list(x)


def _mark_break_even(axes: Axes, chart: Chart) -> None:
    axes.axhline(BREAK_EVEN, color=INK, linestyle=":", label="break-even")
    for line in chart.lines:
        place = crossing(line.x, line.y)
        if place is not None and line.y[0] < BREAK_EVEN:
            axes.plot(_place(chart, [place]), [BREAK_EVEN], "x", color=INK, markersize=8)


def _scale(axes: Axes, chart: Chart) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if chart.x_axis == "sparsity":
        places = sorted({value for line in chart.lines for value in line.x})
        axes.xaxis.set_major_locator(FixedLocator(_place(chart, places)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - math.exp(-value)):.3g}"))
    elif chart.x_axis == "weights left":
        axes.xaxis.set_major_locator(FixedLocator(_place(chart, _ROUND)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * math.exp(-value):.3g}"))
    elif chart.x_axis == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_locator(NullLocator())
    if chart.y_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
