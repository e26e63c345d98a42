"""The plots: record data in, a matplotlib Figure out.

Figures are small with large text, because the same picture has to be read on a phone, 350 pixels wide.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lth_sparse.report.words import TIMES
from lth_sparse.storage.arms import CONTROLS
from lth_sparse.storage.arms import TICKET as TICKET_ARM
from lth_sparse.storage.record import CurvePoint, Round
from lth_sparse.storage.summary import SummaryRow

WIDTH = 4.8
LONGEST_TITLE = 40
MOST_NAMED_RUNS = 50
"""In one plot; of more, the names alone would be higher than a page."""
INK, TICKET, PRUNED = "#222222", "#0072b2", "#00795a"
CONTROL_LINES = dict(
    zip(
        CONTROLS,
        (("s--", "#c04e00"), ("D--", "#8f5fa8"), ("x:", "#c04e00"), ("v--", "#6b6b6b"), ("P--", "#a08000"),
         ("^--", "#00795a"), ("h--", "#5b3a29")),
        strict=True,
    )
)  # fmt: skip
"""Marker, line and colour of each."""

# What a matplotlibrc could change and a reader would see: equal records give equal pictures everywhere.
# Nothing is mathematics: a dollar sign in the name of a class is a dollar sign.
styled = matplotlib.rc_context(
    {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.usetex": False,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#888888",
        "axes.facecolor": "white",
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": "white",
        "figure.dpi": 200,
        "legend.frameon": False,
        "legend.fontsize": 10,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
    }
)


@styled
def png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes."""
    content = io.BytesIO()
    # Without the version of matplotlib, which is all that it would add, only the picture decides the bytes.
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


@styled
def accuracy(rounds: Sequence[Round], best: Round, subject: str) -> Figure:
    """Test accuracy against weights left: above what training reaches, below what pruning alone leaves.

    Two panels, since a pruned network that was not retrained falls to chance; on one scale that would press
    the differences between tickets into a line.
    """
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = _weights_left(rounds)
    for axes in (upper, lower):
        axes.set_ylabel("test accuracy (%)")
        axes.axhline(100 * rounds[0].accuracy_retrained, color=INK, linestyle=":", label="dense")
        axes.plot(x, _percent([row.accuracy_retrained for row in rounds]), "o-", color=TICKET, label="ticket")
    for name, (style, color) in CONTROL_LINES.items():
        reached = _percent([CONTROLS[name].of(row) for row in rounds])
        if np.isfinite(reached).any():
            upper.plot(x, reached, style, color=color, label=CONTROLS[name].words)
    upper.plot(100 * best.density, 100 * best.accuracy_retrained, "o", color=TICKET, markersize=12, fillstyle="none")
    pruned = _percent([row.accuracy_after_prune for row in rounds])
    lower.plot(x, pruned, "^-", color=PRUNED, label="pruned, not retrained")
    title(upper, subject)
    lower.set_ylim(0, 103)
    upper.legend(loc="best")
    lower.legend(loc="best")
    sparsity_axis(lower, x)
    return figure


@styled
def bands(rows: Sequence[SummaryRow], subject: str) -> Figure:
    """Mean test accuracy over seeds against weights left, each arm in the band of its interval."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    dense = rows[0]
    for name, arm in {"ticket": TICKET_ARM, **CONTROLS}.items():
        of_arm = [row for row in rows if row.arm == name]
        if not of_arm:
            continue
        style, color = CONTROL_LINES.get(name, ("o-", TICKET))
        _band(axes, of_arm, style, color, arm.words)
    axes.axhline(100 * dense.accuracy, color=INK, linestyle=":", label="dense")
    axes.set_ylabel("test accuracy (%)")
    title(axes, subject)
    axes.legend(loc="best")
    sparsity_axis(axes, np.array([100 * row.density for row in rows]))
    return figure


@styled
def runs(curves: Mapping[str, Sequence[SummaryRow]]) -> Figure:
    """Mean test accuracy of the tickets of several runs against weights left, each in the band of its interval; of more
    than MOST_NAMED_RUNS, lines without bands and names."""
    named = len(curves) <= MOST_NAMED_RUNS
    figure = Figure(figsize=(WIDTH, 4.2 + 0.2 * len(curves) * named), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(curves)))
    for (name, rows), color, marker in zip(curves.items(), colors, itertools.cycle("os^Dv"), strict=False):
        if named:
            _band(axes, rows, f"{marker}-", color, _no_longer(name))
        else:
            x = [100 * row.density for row in rows]
            axes.plot(x, _percent([row.accuracy for row in rows]), color=color, linewidth=0.5)
    axes.set_ylabel("test accuracy (%)")
    if named:
        figure.legend(loc="outside lower center", ncols=1)
    sparsity_axis(axes, np.array([100 * row.density for rows in curves.values() for row in rows]))
    return figure


@styled
def loss_curves(curves: Sequence[CurvePoint], subject: str) -> Figure:
    """Validation loss of each round's ticket against the iteration, from the dense network on."""
    rounds = sorted({point.round for point in curves})
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(rounds)))
    losses = []
    for number, color in zip(rounds, colors, strict=True):
        points = [point for point in curves if point.round == number]
        iterations = np.array([point.iteration for point in points])
        loss = _measured([point.validation_loss for point in points])
        losses.append(loss)
        axes.plot(iterations, loss, color=color)
        if np.isfinite(loss).any():
            lowest = np.nanargmin(loss)
            axes.plot(iterations[lowest], loss[lowest], "o", color=color)
    title(axes, subject)
    axes.set_xlabel("iteration")
    axes.set_ylabel("validation loss")
    _loss_scale(axes, np.concatenate(losses))
    if len(rounds) > 1:
        round_scale(figure, axes, rounds, colors)
    return figure


@styled
def early_stop(rounds: Sequence[Round], subject: str) -> Figure:
    """Iteration of minimum validation loss against weights left."""
    figure, axes = _against_sparsity(rounds, subject)
    iterations = _measured([row.early_stop_iteration for row in rounds])
    axes.axhline(iterations[0], color=INK, linestyle=":", label="dense")
    axes.plot(_weights_left(rounds), iterations, "o-", color=TICKET, label="ticket")
    axes.set_ylim(0, 1.15 * max(float(np.nanmax(iterations)), 1.0))
    axes.set_ylabel("early-stop iteration")
    axes.legend(loc="best")
    return figure


@styled
def speedup(rounds: Sequence[Round], subject: str) -> Figure:
    """Measured speedup of a training step against weights left."""
    figure, axes = _against_sparsity(rounds, subject)
    measured = _measured([row.speedup for row in rounds])
    axes.axhline(1.0, color=INK, linestyle=":", label="dense")
    axes.plot(_weights_left(rounds), measured, "o-", color=TICKET, label="measured")
    axes.set_ylim(0, 1.2 * max(float(np.nanmax(measured)), 1.0))
    axes.set_ylabel(f"speedup of a step ({TIMES})")
    axes.legend(loc="best")
    return figure


def round_scale(figure: Figure, axes: Axes, rounds: Sequence[int], colors: np.ndarray) -> None:
    """Says beside `axes` which of `colors` is which of `rounds`."""
    edges = [number - 0.5 for number in rounds] + [rounds[-1] + 0.5]
    scale = ScalarMappable(BoundaryNorm(edges, len(rounds)), ListedColormap(colors))
    bar = figure.colorbar(scale, ax=axes, label="round", ticks=MaxNLocator(8, integer=True))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def title(axes: Axes, subject: str) -> None:
    """Names what the plot is about; longer than the plot is wide, a title would press the plot flat."""
    axes.set_title(_no_longer(subject))


def _no_longer(text: str) -> str:
    return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…"


def _band(axes: Axes, rows: Sequence[SummaryRow], style: str, color: Any, label: str) -> None:
    x = np.array([100 * row.density for row in rows])
    mean = _percent([row.accuracy for row in rows])
    half = 100 * np.array([row.accuracy_half or 0.0 for row in rows])
    axes.plot(x, mean, style, color=color, label=label)
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.18, linewidth=0)


def _against_sparsity(rounds: Sequence[Round], subject: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    title(axes, subject)
    sparsity_axis(axes, _weights_left(rounds))
    return figure, axes


def sparsity_axis(axes: Axes, percentages: np.ndarray) -> None:
    """Percentage of weights left on a log scale that falls to the right, labelled at the rounds."""
    logs = np.log(percentages[np.isfinite(percentages)])
    low, high = float(logs.min()), float(logs.max())
    room = max(0.05 * (high - low), 0.02)
    labelled: list[float] = []
    for position in sorted(set(logs.tolist()), reverse=True):
        if not labelled or labelled[-1] - position > (high - low) / 7:
            labelled.append(position)
    axes.set_xscale("log")
    axes.set_xlim(float(np.exp(high + room)), float(np.exp(low - room)))
    axes.xaxis.set_major_locator(FixedLocator(np.exp(labelled).tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.set_xlabel("weights left (%), log scale")


def _loss_scale(axes: Axes, losses: np.ndarray) -> None:
    positive = losses[np.isfinite(losses) & (losses > 0)]
    # Less than threefold, a log scale has no round number to label and shows nothing more.
    if positive.size and positive.max() > 3 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _weights_left(rounds: Sequence[Round]) -> np.ndarray:
    density = _measured([row.density for row in rounds])
    return np.where(density > 0, 100 * density, np.nan)


def _percent(fractions: Sequence[float | None]) -> np.ndarray:
    return 100 * _measured(fractions)


def _measured(values: Sequence[float | None]) -> np.ndarray:
    """The values as floats, with a gap (NaN) for every one that was not measured or is infinite."""
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.where(np.isfinite(array), array, np.nan)
