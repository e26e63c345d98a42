"""The two plots that are matrices: weights left per layer and round, and the confusion of classes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lth_sparse.report.plots import WIDTH, styled, title
from lth_sparse.report.words import plus_minus
from lth_sparse.storage.record import LayerCount
from lth_sparse.storage.summary import SummaryRow

MOST_NUMBERED_ROUNDS = 9
MOST_NAMED_CLASSES = 20
MOST_NUMBERED_CLASSES = 12


@styled
def layers(counts: Sequence[LayerCount], subject: str) -> Figure:
    """Weights left in each layer after each round's pruning, coloured on a log scale.

    A matrix, not lines: layers pruned at the same rate would lie on top of each other.
    """
    names = list(dict.fromkeys(count.layer for count in counts))
    rounds = sorted({count.round for count in counts})
    left = np.full((len(names), len(rounds)), np.nan)
    for count in counts:
        left[names.index(count.layer), rounds.index(count.round)] = 100 * count.live / max(count.weights, 1)

    figure = Figure(figsize=(WIDTH, float(np.clip(1.3 + 0.3 * len(names), 2.6, 7.5))), layout="constrained")
    axes = _matrix_axes(figure, subject)
    positive = left[left > 0]
    lowest = min(float(positive.min()) if positive.size else 50.0, 50.0)
    # The darkest colour is 10 times all the weights: even there, black or white text reads well.
    image = axes.imshow(np.where(left > 0, left, np.nan), cmap="Blues", norm=LogNorm(lowest, 200), aspect="auto")
    axes.yaxis.set_major_locator(FixedLocator(list(range(len(names)))))
    axes.set_yticklabels([_short(name) for name in names], fontsize=10)
    axes.set_xlabel("round")
    if len(rounds) <= MOST_NUMBERED_ROUNDS:
        axes.xaxis.set_major_locator(FixedLocator(list(range(len(rounds)))))
        axes.set_xticklabels([str(number) for number in rounds])
        _write_numbers(axes, left, np.asarray(image.norm(left)), "{:.3g}", 9)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda at, _: str(rounds[round(at)]) if 0 <= at < len(rounds) else "")
        )
        bar = figure.colorbar(image, ax=axes, label="weights left (%), log scale")
        marks = [mark for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if mark >= lowest]
        bar.ax.set_ylim(lowest, 100)
        bar.set_ticks(marks, labels=[f"{mark:g}" for mark in marks])
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return figure


@styled
def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], subject: str) -> Figure:
    """Test images by true and predicted class, coloured by the share of their true class."""
    images = np.array(counts, dtype=float)
    share = images / np.maximum(images.sum(axis=1, keepdims=True), 1)
    size = len(images)
    figure = Figure(figsize=(WIDTH, 4.9 if size <= MOST_NUMBERED_CLASSES else 4.3), layout="constrained")
    axes = _matrix_axes(figure, subject)
    # Square root: a class mistaken once in a hundred should still be seen beside a diagonal near 1.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    if size <= MOST_NAMED_CLASSES and len(classes) == size:
        names = [_short(name, 12) for name in classes]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(list(range(size))))
        upright = max(len(name) for name in names) > 3
        axes.set_xticklabels(names, fontsize=10, rotation=90 if upright else 0)
        axes.set_yticklabels(names, fontsize=10)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
    else:
        axes.set_xlabel("predicted class, by number")
        axes.set_ylabel("true class, by number")
    if size <= MOST_NUMBERED_CLASSES:
        _write_numbers(axes, np.where(images > 0, images, np.nan), np.asarray(image.norm(share)), "{:.0f}", 9)
    else:
        figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


@styled
def transfers(
    sources: Sequence[str], targets: Sequence[str], rows: Mapping[tuple[str, str], SummaryRow], against: str
) -> Figure:
    """The ticket's accuracy less that of another arm, in points, of each source (row) on each target (column); blue
    where it is better, red where it is worse."""
    points = np.full((len(sources), len(targets)), np.nan)
    for (source, target), row in rows.items():
        if row.difference is not None:
            points[sources.index(source), targets.index(target)] = 100 * row.difference
    height = float(np.clip(2.2 + 0.55 * len(sources), 2.8, 9))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = _matrix_axes(figure, f"ticket less {against}, points")
    largest = float(np.nanmax(np.abs(points), initial=1.0))
    # The deepest colours are three times the largest difference: on all others, black text reads well.
    axes.imshow(points, cmap="RdBu", norm=Normalize(-3 * largest, 3 * largest), aspect="auto")
    for (source, target), row in rows.items():
        text = plus_minus(row.difference, row.difference_half)
        axes.text(targets.index(target), sources.index(source), text, ha="center", va="center", fontsize=9)
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(targets)))))
    axes.yaxis.set_major_locator(FixedLocator(list(range(len(sources)))))
    axes.set_xticklabels([_wrapped(name, 60 // max(len(targets), 1)) for name in targets], fontsize=9)
    axes.set_yticklabels([_wrapped(name, 20) for name in sources], fontsize=9)
    axes.set_xlabel("trained on")
    axes.set_ylabel("found on")
    return figure


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, max(width, 8)))


def _matrix_axes(figure: Figure, subject: str) -> Axes:
    axes = figure.subplots()
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    title(axes, subject)
    return axes


def _write_numbers(axes: Axes, values: np.ndarray, darkness: np.ndarray, form: str, size: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if darkness[row, column] > 0.6 else "black"
            axes.text(column, row, form.format(value), ha="center", va="center", fontsize=size, color=color)


def _short(name: str, length: int = 20) -> str:
    """The end of a long name: that is where `features.0.conv1` and `features.0.conv2` differ."""
    return name if len(name) <= length else "…" + name[1 - length :]
